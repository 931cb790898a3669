#!/usr/bin/env bash
# Write the page that runs exported classifiers in the browser into a folder: web/build.sh build/web
# digits.onnx and digits-untied.onnx go with it if they lie at the top of this checkout.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")"
if ! command -v npm >/dev/null; then
  echo 'error: npm was not found; expected Node.js 20.11 or newer, from https://nodejs.org' >&2
  exit 2
fi
version=$(sed -n 's/.*"onnxruntime-web": "\([^"]*\)".*/\1/p' package.json)
if ! grep -qs "\"version\": \"$version\"" node_modules/onnxruntime-web/package.json; then
  npm ci --omit=dev --no-audit --no-fund
fi
mkdir -p "$out/ort" "$out/models"
cp index.html style.css ./*.js "$out"
cp node_modules/onnxruntime-web/dist/{ort.wasm.bundle.min.mjs,ort-wasm-simd-threaded.wasm} "$out/ort"
for model in digits.onnx digits-untied.onnx; do
  rm -f "$out/models/$model"
  [ ! -e "../$model" ] || cp "../$model" "$out/models"
done
