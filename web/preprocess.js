// An image goes through the test pipeline that the file's metadata names, as mmpretrain runs it.

import { UserError } from './onnx_file.js'
import { empty, resize, roundEven } from './resize.js'

/** As OpenCV converts RGB to grey levels. Its decoders may be a level or two off. */
function toGrey({ width, height, data }) {
  const out = empty(width, height, 1)
  for (let i = 0; i < out.data.length; i++) {
    out.data[i] = (data[3 * i] * 4899 + data[3 * i + 1] * 9617 + data[3 * i + 2] * 1868 + 8192) >> 14
  }
  return out
}

function crop(image, width, height) {
  width = Math.min(width, image.width)
  height = Math.min(height, image.height)
  const left = roundEven((image.width - width) / 2)
  const top = roundEven((image.height - height) / 2)
  const out = empty(width, height, image.channels)
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * image.channels
    out.data.set(image.data.subarray(from, from + width * image.channels), y * width * image.channels)
  }
  return out
}

const pair = (size) => (Array.isArray(size) ? size : [size, size])

// The transforms of mmcv's and mmpretrain's, with their defaults
const TRANSFORMS = {
  Resize(image, { scale, keep_ratio = false, interpolation = 'bilinear', backend = 'cv2' }) {
    if (keep_ratio || scale === undefined) throw new UserError('Resize with keep_ratio or scale_factor is not known to this page')
    return resize(image, ...pair(scale), interpolation, backend)
  },
  ResizeEdge(image, { scale, edge = 'short', interpolation = 'bilinear', backend = 'cv2' }) {
    const { width: w, height: h } = image
    const toWidth = (edge === 'short' && w < h) || (edge === 'long' && w > h) || edge === 'width'
    const [width, height] = toWidth ? [scale, Math.trunc((scale * h) / w)] : [Math.trunc((scale * w) / h), scale]
    return resize(image, width, height, interpolation, backend)
  },
  CenterCrop(image, { crop_size: size, auto_pad = false }) {
    if (auto_pad) throw new UserError('CenterCrop with auto_pad is not known to this page')
    return crop(image, ...pair(size))
  },
}

/**
 * Make the input of a model from a picture.
 *
 * @param {{width: number, height: number, channels: 3, data: Uint8ClampedArray}} picture RGB, from 0 to 255.
 * @param {object} metadata The file's: `pipeline`, `channels`, `mean`, `std`.
 * @param {(number|string)[]} dims The sizes of the file's input, N, C, H, W; a name stands for any size.
 * @returns {{image: object, data: Float32Array, dims: number[]}} The picture as the model sees it, and its tensor.
 * @throws {UserError} If the pipeline has a transform that this page does not know.
 */
export function preprocess(picture, metadata, dims) {
  let image = metadata.channels === 'grey' ? toGrey(picture) : picture
  for (const transform of metadata.pipeline) {
    const run = TRANSFORMS[transform.type]
    if (!run) throw new UserError(`${transform.type} is not a transform of this page; it has ${Object.keys(TRANSFORMS).join(', ')}`)
    image = run(image, transform)
  }
  // A file of --shape has another size than its pipeline.
  const [height, width] = [dims[2], dims[3]].map((size, i) => (typeof size === 'number' ? size : [image.height, image.width][i]))
  if (width !== image.width || height !== image.height) image = resize(image, width, height, 'bilinear', 'pillow')
  const { channels } = image
  const { mean = Array(channels).fill(0), std = Array(channels).fill(1) } = metadata
  const size = width * height
  const data = new Float32Array(channels * size)
  for (let c = 0; c < channels; c++) {
    const from = metadata.channels === 'BGR' ? channels - 1 - c : c
    for (let i = 0; i < size; i++) data[c * size + i] = (image.data[i * channels + from] - mean[c]) / std[c]
  }
  return { image, data, dims: [1, channels, height, width] }
}
