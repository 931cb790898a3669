// Pictures: read from files, drawn by hand, and shown.

import { UserError } from './onnx_file.js'
import { empty } from './resize.js'

/** The RGB image of a canvas; a transparent pixel keeps the colour that it has over black. */
function fromCanvas(canvas) {
  const { width, height } = canvas
  const { data } = canvas.getContext('2d', { willReadFrequently: true }).getImageData(0, 0, width, height)
  const image = empty(width, height, 3)
  for (let i = 0, at = 0; i < data.length; i += 4) {
    for (let c = 0; c < 3; c++) image.data[at++] = data[i + c]
  }
  return image
}

/**
 * Read an image file, with the pixels that are in it: no conversion of colours, turned as its camera says.
 *
 * @param {Blob} file The file.
 * @param {string} name Its name, for messages.
 * @throws {UserError} If the browser cannot read it.
 */
export async function readPicture(file, name) {
  let bitmap
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none' })
  } catch {
    throw new UserError(`${name} is neither an ONNX file nor an image that this browser reads; expected .onnx, .jpg or .png`)
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height)
  const context = canvas.getContext('2d', { willReadFrequently: true })
  context.fillRect(0, 0, canvas.width, canvas.height)
  context.drawImage(bitmap, 0, 0)
  return fromCanvas(canvas)
}

/** Draw an image into a canvas of its size. */
export function paint(image, canvas) {
  const { width, height, channels, data } = image
  Object.assign(canvas, { width, height })
  const pixels = new ImageData(width, height)
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = data[i * channels + (channels === 3 ? c : 0)]
    pixels.data[4 * i + 3] = 255
  }
  canvas.getContext('2d').putImageData(pixels, 0, 0)
}

const LINE = 0.1 // width of the pen, as a fraction of the pad's
const GRID = 32 // the set's digits were bitmaps of 32 x 32, from which
const BLOCK = 4 // each grey level is the number of set pixels of 4 x 4

/** A canvas to draw on, white on black. `onDrawn` is called after each stroke. */
export class Pad {
  constructor(canvas, onDrawn) {
    this.canvas = canvas
    this.context = canvas.getContext('2d', { willReadFrequently: true })
    this.clear()
    const place = (event) => {
      const box = canvas.getBoundingClientRect()
      const factor = canvas.width / box.width
      return [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor]
    }
    const line = (from, to) => {
      Object.assign(this.context, { lineWidth: LINE * canvas.width, lineCap: 'round', strokeStyle: '#fff' })
      this.context.beginPath()
      this.context.moveTo(...from)
      this.context.lineTo(...to)
      this.context.stroke()
    }
    let last = null
    canvas.addEventListener('pointerdown', (event) => {
      if (!this.drawn) this.clear() // a picture may be shown
      canvas.setPointerCapture(event.pointerId)
      last = place(event)
      line(last, last)
      this.drawn = true
    })
    canvas.addEventListener('pointermove', (event) => {
      if (!last) return
      const next = place(event)
      line(last, next)
      last = next
    })
    for (const kind of ['pointerup', 'pointercancel']) {
      canvas.addEventListener(kind, () => {
        if (last) onDrawn()
        last = null
      })
    }
  }

  clear() {
    this.drawn = false
    this.context.fillStyle = '#000'
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height)
  }

  /** Show a picture instead of a drawing. */
  show(image) {
    this.clear()
    const canvas = new OffscreenCanvas(1, 1)
    paint(image, canvas)
    const { width, height } = this.canvas
    const factor = Math.min(width / image.width, height / image.height)
    const [w, h] = [image.width * factor, image.height * factor]
    this.context.imageSmoothingEnabled = factor < 1
    this.context.drawImage(canvas, (width - w) / 2, (height - h) / 2, w, h)
  }

  /** The drawing, as it is. */
  picture() {
    return fromCanvas(this.canvas)
  }

  /** The drawing as a digit of the set: as high as its frame, in the middle, 8 x 8 grey levels of 16 steps. */
  digit() {
    const { width, height, data } = this.picture()
    const [xs, ys] = [[], []]
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (data[3 * (y * width + x)] > 127) {
          xs.push(x)
          ys.push(y)
        }
      }
    }
    const ends = (values) => [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b)) + 1]
    const [[left, right], [top, bottom]] = [ends(xs), ends(ys)]
    const factor = GRID / Math.max(right - left, bottom - top)
    const [w, h] = [(right - left) * factor, (bottom - top) * factor]
    const bitmap = new OffscreenCanvas(GRID, GRID)
    const context = bitmap.getContext('2d', { willReadFrequently: true })
    context.fillRect(0, 0, GRID, GRID)
    context.imageSmoothingQuality = 'high'
    context.drawImage(this.canvas, left, top, right - left, bottom - top, (GRID - w) / 2, (GRID - h) / 2, w, h)
    const set = fromCanvas(bitmap).data
    const digit = empty(GRID / BLOCK, GRID / BLOCK, 3)
    for (let y = 0; y < digit.height; y++) {
      for (let x = 0; x < digit.width; x++) {
        let count = 0
        for (let i = 0; i < BLOCK * BLOCK; i++) {
          const [row, column] = [y * BLOCK + (i >> 2), x * BLOCK + (i % BLOCK)]
          count += set[3 * (row * GRID + column)] > 127
        }
        digit.data.fill(Math.round((count * 255) / BLOCK ** 2), 3 * (y * digit.width + x), 3 * (y * digit.width + x) + 3)
      }
    }
    return digit
  }
}
