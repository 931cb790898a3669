// A classifier: an ONNX file in ONNX Runtime Web, on one thread of the processor.

import * as ort from './ort/ort.wasm.bundle.min.mjs'
import { UserError, checkClassifier, readOnnx } from './onnx_file.js'
import { preprocess } from './preprocess.js'

export const runtime = { version: ort.env.versions.web, file: 'ort-wasm-simd-threaded.wasm' }

ort.env.wasm.numThreads = 1 // more need headers that a static site cannot send: COOP and COEP
ort.env.wasm.wasmPaths = { wasm: new URL(`./ort/${runtime.file}`, import.meta.url).href }
ort.env.logLevel = 'error'

export const BEST = 5
// A run is repeated until as many are done, or until these milliseconds are over: the browser compiles while it runs.
const RUNS = 25
const MOST_TIME = 500

function softmax(logits) {
  const top = Math.max(...logits)
  const powers = logits.map((x) => Math.exp(x - top))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((x) => x / sum)
}

const oneLine = (error) => String(error?.message ?? error).replace(/\s+/g, ' ').slice(0, 200)

export class Classifier {
  /**
   * Open a file of tools/export.py.
   *
   * @param {Uint8Array} bytes The file.
   * @param {string} name Its name.
   * @returns {Promise<Classifier>}
   * @throws {UserError} In one line, if the file is not a whole classifier of ours.
   */
  static async open(bytes, name) {
    const file = readOnnx(bytes, name)
    checkClassifier(file, name)
    try {
      return new Classifier(name, bytes.length, file, await ort.InferenceSession.create(bytes))
    } catch (error) {
      throw new UserError(`ONNX Runtime cannot open ${name}: ${oneLine(error)}`)
    }
  }

  constructor(name, bytes, { inputs: [input], outputs, metadata }, session) {
    Object.assign(this, { name, bytes, input, metadata, session })
    this.attends = outputs.some((output) => output.name === 'attention')
  }

  /** Name of a class, or its number. */
  className(label) {
    return this.metadata.classes?.[label] ?? `class ${label}`
  }

  /**
   * Classify a picture.
   *
   * @param {{width: number, height: number, channels: 3, data: Uint8ClampedArray}} picture RGB, from 0 to 255.
   * @returns {Promise<object>} `best`: [{label, name, probability}], the highest first; `milliseconds`: time of
   *   the shortest run; `runs`: how many there were; `image`: what the model saw; `attention`: null, or {layers, heads, rows,
   *   columns, data} of the class token.
   * @throws {UserError} If the page cannot prepare the picture as the file asks, or if the run fails.
   */
  async run(picture) {
    const { image, data, dims } = preprocess(picture, this.metadata, this.input.dims)
    const feeds = { [this.input.name]: new ort.Tensor('float32', data, dims) }
    const times = []
    let outputs
    try {
      const start = performance.now()
      do {
        const before = performance.now()
        outputs = await this.session.run(feeds)
        times.push(performance.now() - before)
      } while (times.length < RUNS && performance.now() - start < MOST_TIME)
    } catch (error) {
      throw new UserError(`${this.name} cannot be run on an image of ${dims[3]} x ${dims[2]}: ${oneLine(error)}`)
    }
    const logits = Array.from(outputs.logits.data)
    const several = this.metadata.task === 'labels' // an image may have several labels, or none
    const probabilities = several ? logits.map((x) => 1 / (1 + Math.exp(-x))) : softmax(logits)
    const best = probabilities
      .map((probability, label) => ({ label, name: this.className(label), probability }))
      .sort((a, b) => b.probability - a.probability)
      .slice(0, BEST)
    return {
      best,
      image,
      runs: times.length,
      milliseconds: Math.min(...times),
      attention: this.attends ? maps(outputs.attention) : null,
    }
  }

  /** Give the memory of the file back. */
  close() {
    return this.session.release()
  }
}

function maps({ dims: [, layers, heads, rows, columns], data }) {
  return { layers, heads, rows, columns, data }
}

/**
 * One map of the attention, over the patches.
 *
 * @param {object} attention Of `Classifier.run`.
 * @param {number} layer From 0.
 * @param {number|null} head From 0; null for the mean over the heads.
 * @returns {Float32Array} Of rows x columns; what is missing to a sum of 1 is the class token's attention to itself.
 */
export function attentionMap({ heads, rows, columns, data }, layer, head) {
  const size = rows * columns
  const chosen = head === null ? Array.from({ length: heads }, (_, i) => i) : [head]
  const map = new Float32Array(size)
  for (const one of chosen) {
    const start = (layer * heads + one) * size
    for (let i = 0; i < size; i++) map[i] += data[start + i] / chosen.length
  }
  return map
}
