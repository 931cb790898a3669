// Resizing of 8-bit images, pixel by pixel as Pillow and OpenCV do it, since mmpretrain's pipelines call these.
// An image is { width, height, channels, data }, `data` being rows of pixels of interleaved channels.

import { UserError } from './onnx_file.js'

export const empty = (width, height, channels) =>
  ({ width, height, channels, data: new Uint8ClampedArray(width * height * channels) })

const cubic = (a) => (x) => {
  x = Math.abs(x)
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
}
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI))

// Pillow's filters, and how far each reaches
const PILLOW = {
  box: [(x) => (x > -0.5 && x <= 0.5 ? 1 : 0), 0.5],
  bilinear: [(x) => Math.max(0, 1 - Math.abs(x)), 1],
  bicubic: [cubic(-0.5), 2],
  lanczos: [(x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0), 3],
}
const PILLOW_ONE = 2 ** 22

/** For each pixel of the output, the first pixel of the input and the weights from there on. */
function pillowWeights(from, to, [filter, reach]) {
  const scale = from / to
  const stretch = Math.max(scale, 1) // makes a smaller image without aliasing
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale
    const start = Math.max(0, Math.trunc(centre - reach * stretch + 0.5))
    const end = Math.min(from, Math.trunc(centre + reach * stretch + 0.5))
    const weights = Array.from({ length: end - start }, (_, k) => filter((k + start - centre + 0.5) / stretch))
    const sum = weights.reduce((a, b) => a + b, 0)
    return [start, weights.map((w) => Math.trunc((w / sum) * PILLOW_ONE + (w < 0 ? -0.5 : 0.5)))]
  })
}

function pillowPass(image, to, filter, horizontal) {
  const { width, height, channels, data } = image
  const out = horizontal ? empty(to, height, channels) : empty(width, to, channels)
  const along = horizontal ? channels : width * channels // from a pixel to the next one of the direction
  const weights = pillowWeights(horizontal ? width : height, to, filter)
  let at = 0
  for (let y = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      const [start, row] = weights[horizontal ? x : y]
      const base = (horizontal ? y * width : x) * channels + start * along
      for (let c = 0; c < channels; c++) {
        let sum = PILLOW_ONE / 2
        for (let k = 0; k < row.length; k++) sum += data[base + c + k * along] * row[k]
        out.data[at++] = Math.floor(sum / PILLOW_ONE)
      }
    }
  }
  return out
}

function pillow(image, width, height, name) {
  const filter = PILLOW[name]
  if (width !== image.width) image = pillowPass(image, width, filter, true)
  return height === image.height ? image : pillowPass(image, height, filter, false)
}

const CV2_ONE = 2048

/** Halves round to the even neighbour, as C's rint and Python's round do. */
export const roundEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x))

/** For each pixel of the output, the first of two pixels of the input and their weights. */
function cv2Weights(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.fround((i + 0.5) * (from / to) - 0.5)
    const start = Math.floor(place)
    const second = Math.fround(place - start)
    return [start, roundEven(Math.fround(1 - second) * CV2_ONE), roundEven(second * CV2_ONE)]
  })
}

/** cv2.INTER_LINEAR of uint8, with its fixed-point numbers: of each output pixel four input pixels, without antialiasing. */
function cv2Bilinear(image, width, height) {
  const { channels, data } = image
  if (width === image.width && height === image.height) return image
  const out = empty(width, height, channels)
  const stride = image.width * channels
  if (image.width === 2 * width && image.height === 2 * height) {
    // OpenCV takes the mean of four pixels.
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        for (let c = 0; c < channels; c++, at++) {
          const base = 2 * y * stride + 2 * x * channels + c
          out.data[at] = (data[base] + data[base + channels] + data[base + stride] + data[base + stride + channels] + 2) >> 2
        }
      }
    }
    return out
  }
  const columns = cv2Weights(image.width, width).map(([start, a, b]) => {
    if (start < 0) return [0, 0, CV2_ONE, 0]
    if (start >= image.width - 1) return [image.width - 1, image.width - 1, CV2_ONE, 0]
    return [start, start + 1, a, b]
  })
  const rows = cv2Weights(image.height, height)
  const clip = (y) => Math.min(Math.max(y, 0), image.height - 1)
  let at = 0
  for (const [y, top, bottom] of rows) {
    const [upper, lower] = [clip(y) * stride, clip(y + 1) * stride]
    for (const [left, right, a, b] of columns) {
      for (let c = 0; c < channels; c++) {
        const across = (row) => (data[row + left * channels + c] * a + data[row + right * channels + c] * b) >> 4
        out.data[at++] = (((across(upper) * top) >> 16) + ((across(lower) * bottom) >> 16) + 2) >> 2
      }
    }
  }
  return out
}

/**
 * Resize an image as mmcv.imresize does.
 *
 * @param {object} image The image.
 * @param {number} width New width in pixels.
 * @param {number} height New height in pixels.
 * @param {string} interpolation Name of the interpolation, for the backend.
 * @param {string} backend 'pillow' or 'cv2'.
 * @throws {UserError} If this page does not know the interpolation.
 */
export function resize(image, width, height, interpolation, backend) {
  if (backend === 'pillow' && interpolation in PILLOW) return pillow(image, width, height, interpolation)
  if (backend === 'cv2' && interpolation === 'bilinear') return cv2Bilinear(image, width, height)
  throw new UserError(
    `interpolation '${interpolation}' of ${backend} is not one that this page computes; expected 'bilinear' of cv2, ` +
      `or ${Object.keys(PILLOW).join(', ')} of pillow`,
  )
}
