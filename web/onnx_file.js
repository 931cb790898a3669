// What an ONNX file says of itself: inputs, outputs and metadata. ONNX Runtime Web does not show the metadata.
// The numbers of the fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.

/** A mistake that is shown in one line. */
export class UserError extends Error {}

const FLOAT = 1
const TYPES = { 1: 'float32', 2: 'uint8', 3: 'int8', 6: 'int32', 7: 'int64', 9: 'bool', 10: 'float16', 11: 'float64' }
const text = new TextDecoder()
const NOTHING = new Uint8Array()

/** Yield [field, value] of a protobuf message; a value is a number, or the bytes of a text or a message. */
function* fields(bytes) {
  let at = 0
  const varint = () => {
    let value = 0
    for (let factor = 1; factor < 2 ** 70; factor *= 128) {
      if (at >= bytes.length) throw new RangeError('cut')
      const byte = bytes[at++]
      value += (byte & 127) * factor
      if (byte < 128) return value
    }
    throw new SyntaxError('a number of more than 10 bytes')
  }
  while (at < bytes.length) {
    const key = varint()
    const field = Math.floor(key / 8)
    const kind = key % 8
    if (field === 0) throw new SyntaxError('field 0')
    if (kind === 0) {
      yield [field, varint()]
      continue
    }
    const length = { 1: () => 8, 2: varint, 5: () => 4 }[kind]?.()
    if (length === undefined) throw new SyntaxError(`wire type ${kind}`)
    if (at + length > bytes.length) throw new RangeError('cut')
    yield [field, bytes.subarray(at, at + length)]
    at += length
  }
}

const all = (bytes, wanted) => [...fields(bytes)].filter(([field]) => field === wanted).map(([, value]) => value)
const first = (bytes, wanted) => all(bytes, wanted)[0]

/** Of a ValueInfoProto: its name, its type, and its sizes, which are numbers, or names where any size is taken. */
function valueInfo(bytes) {
  const tensor = first(first(bytes, 2) ?? NOTHING, 1) ?? NOTHING // a sequence or a map has no tensor
  const dims = all(first(tensor, 2) ?? NOTHING, 1).map((dim) => {
    const [[field, value]] = [...fields(dim), [2, NOTHING]]
    return field === 1 ? value : text.decode(value)
  })
  return { name: text.decode(first(bytes, 1)), type: TYPES[first(tensor, 1)] ?? 'another type', dims }
}

/**
 * Read an ONNX file's description of itself.
 *
 * @param {Uint8Array} bytes The file.
 * @param {string} name Its name, for messages.
 * @returns {{inputs: object[], outputs: object[], metadata: object}} `metadata` has what tools/export.py wrote, parsed.
 * @throws {UserError} If it is not an ONNX file, if it is cut, or if its weights are in another file.
 */
export function readOnnx(bytes, name) {
  const start = bytes.subarray(0, 2)
  // The first field of a file is its version, a small number.
  if (start[0] !== 8 || start[1] === 0 || start[1] > 127) {
    throw new UserError(`${name} is not an ONNX file; expected one of tools/export.py --out NAME.onnx`)
  }
  try {
    const graph = first(bytes, 7)
    if (!graph) throw new RangeError('no graph')
    // Weights may be external: field 14 of a TensorProto is then 1.
    if (all(graph, 5).some((tensor) => first(tensor, 14) === 1)) {
      throw new UserError(`${name} has its weights in another file; export it without --external-data`)
    }
    const metadata = {}
    for (const entry of all(bytes, 14)) {
      const [key, value] = [1, 2].map((field) => text.decode(first(entry, field)))
      try {
        metadata[key] = JSON.parse(value)
      } catch {
        metadata[key] = value // of another exporter
      }
    }
    return { inputs: all(graph, 11).map(valueInfo), outputs: all(graph, 12).map(valueInfo), metadata }
  } catch (error) {
    if (error instanceof UserError) throw error
    const what = error instanceof RangeError ? 'is cut: its content ends before its end' : 'is not an ONNX file, or is damaged'
    throw new UserError(`${name} ${what}; expected a whole file of tools/export.py`)
  }
}

const shown = ({ name, type, dims }) => `${name} (${type}, ${dims.map((dim) => dim || '?').join(' x ')})`

/**
 * Refuse a file that is not a classifier of ours.
 *
 * @param {object} file From `readOnnx`.
 * @param {string} name The file's name, for messages.
 * @throws {UserError} If it takes or returns something else, or does not say how its images are made.
 */
export function checkClassifier({ inputs, outputs, metadata }, name) {
  const [input] = inputs
  const isImage = inputs.length === 1 && input.type === TYPES[FLOAT] && input.dims.length === 4
  if (!isImage || ![1, 3].includes(input.dims[1])) {
    throw new UserError(`${name} takes ${inputs.map(shown).join(', ')}; expected images (float32, N x 3 x H x W)`)
  }
  const logits = outputs.find((output) => output.name === 'logits')
  if (logits?.dims.length !== 2) {
    throw new UserError(`${name} returns ${outputs.map(shown).join(', ')}, so it is not a classifier; expected logits (N x classes)`)
  }
  if (!Array.isArray(metadata.pipeline)) {
    throw new UserError(`${name} does not say how its images are made; export it again with this version of tools/export.py`)
  }
}
