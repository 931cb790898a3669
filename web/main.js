// The page: a picture, a model and its counterpart.

import { Classifier, attentionMap, runtime } from './classifier.js'
import { UserError } from './onnx_file.js'
import { Pad, paint, readPicture } from './pictures.js'

// Where web/build.sh puts the files of `make demo`, if they were exported
const PLACES = [
  { title: 'Model', url: 'models/digits.onnx' },
  { title: 'Untied counterpart', url: 'models/digits-untied.onnx' },
]
const DIGITS = '0123456789'

const find = (selector, within = document) => within.querySelector(selector)
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`

function say(message) {
  find('#message').hidden = !message
  find('#message').textContent = message ?? ''
}

/** Show a mistake in one line; what is not the user's is a bug, and is in the console too. */
function report(error) {
  if (!(error instanceof UserError)) console.error(error)
  say(error.message)
}

/** The part of the page that shows a model. */
class View {
  constructor({ title, url }) {
    const part = find('#model').content.cloneNode(true).firstElementChild
    Object.assign(this, { part, url, model: null, result: null })
    find('h2', part).textContent = title
    this.closed()
    find('.open', part).addEventListener('change', ({ target }) => {
      if (target.files[0]) openFile(target.files[0], this)
      target.value = ''
    })
    for (const name of ['.layer', '.head']) find(name, part).addEventListener('change', () => this.showAttention())
    find('#models').append(part)
  }

  closed() {
    find('.file', this.part).textContent = 'No file yet: drop one here.'
  }

  async open(bytes, name) {
    const model = await Classifier.open(bytes, name)
    await this.model?.close()
    this.model = model
    find('.file', this.part).textContent = name
    find('.bytes', this.part).textContent = megabytes(model.bytes)
    find('.bytes', this.part).title = `${model.bytes} bytes`
    this.forget()
  }

  forget() {
    this.result = null
    find('.time', this.part).textContent = '–'
    find('.classes', this.part).replaceChildren()
    find('.attention', this.part).hidden = true
  }

  async run(picture) {
    if (!this.model) return
    const result = await this.model.run(picture)
    this.result = result
    find('.time', this.part).textContent = `${result.milliseconds.toFixed(1)} ms`
    find('.time', this.part).title = `the shortest of ${result.runs} runs`
    find('.classes', this.part).replaceChildren(...result.best.map(bar))
    this.offer(result.attention)
    this.showAttention()
  }

  /** Let layers and heads be chosen. */
  offer(attention) {
    find('.attention', this.part).hidden = !attention
    if (!attention) return
    const fill = (select, options, chosen) => {
      if (select.length === options.length) return // as it was for the last picture
      select.replaceChildren(...options.map(([text, value]) => new Option(text, value, false, value === chosen)))
    }
    const numbers = (n) => Array.from({ length: n }, (_, i) => [`${i}`, `${i}`])
    fill(find('.layer', this.part), numbers(attention.layers), `${attention.layers - 1}`)
    fill(find('.head', this.part), [['all', ''], ...numbers(attention.heads)], '')
  }

  showAttention() {
    const { attention, image } = this.result ?? {}
    if (!attention) return
    const [layer, head] = ['.layer', '.head'].map((name) => find(name, this.part).value)
    const map = attentionMap(attention, Number(layer), head === '' ? null : Number(head))
    paint(image, find('.image', this.part))
    const canvas = find('.map', this.part)
    Object.assign(canvas, { width: attention.columns, height: attention.rows })
    const pixels = new ImageData(canvas.width, canvas.height)
    const top = Math.max(...map)
    map.forEach((weight, i) => pixels.data.set([255, 122, 0, (200 * weight) / top], 4 * i))
    canvas.getContext('2d').putImageData(pixels, 0, 0)
    const sum = map.reduce((a, b) => a + b, 0)
    find('.own', this.part).textContent = `${Math.round(100 * sum)} % on the patches, at most ${Math.round(100 * top)} % on one`
  }
}

function bar({ label, name, probability }) {
  const [item, text, meter, number] = ['li', 'span', 'meter', 'span'].map((tag) => document.createElement(tag))
  item.dataset.label = label
  item.dataset.probability = probability
  text.textContent = text.title = name
  meter.value = probability
  number.textContent = `${(100 * probability).toFixed(1)} %`
  item.append(text, meter, number)
  return item
}

const views = PLACES.map((place) => new View(place))
let picture = null // what is classified: a function of the model, which gives an image, since a drawing becomes a digit

/** Classify the picture by each model, one run after another, so that the times are theirs. */
async function runAll() {
  if (picture) {
    for (const view of views) if (view.model) await view.run(picture(view.model))
  }
  compare()
}

function compare() {
  const [ours, theirs] = views.map((view) => view.model)
  const both = ours && theirs
  find('#comparison').textContent = both
    ? `${ours.name} has ${(ours.bytes / theirs.bytes).toFixed(2)} times the bytes of ${theirs.name}.`
    : ''
}

const isDigits = (model) => (model.metadata.classes ?? []).join('') === DIGITS

// One thing at a time: a second stroke or file waits for the first.
let last = Promise.resolve()
function inTurn(task) {
  last = last
    .then(async () => {
      document.body.dataset.busy = ''
      say(null)
      await task()
    })
    .catch(report)
    .finally(() => delete document.body.dataset.busy)
  return last
}

const pad = new Pad(find('#pad'), () =>
  inTurn(() => {
    const [digit, drawing] = [pad.digit(), pad.picture()]
    picture = (model) => (isDigits(model) ? digit : drawing)
    return runAll()
  }),
)

/** Open a model in a view, or an image in the pad. */
function openFile(file, view) {
  return inTurn(async () => {
    if (view || file.name.toLowerCase().endsWith('.onnx')) {
      const place = view ?? views.find(({ model }) => !model) ?? views[0]
      await place.open(new Uint8Array(await file.arrayBuffer()), file.name)
    } else {
      const image = await readPicture(file, file.name)
      picture = () => image
      pad.show(image)
    }
    await runAll()
  })
}

find('#picture').addEventListener('change', ({ target }) => {
  if (target.files[0]) openFile(target.files[0])
  target.value = ''
})
find('#clear').addEventListener('click', () =>
  inTurn(() => {
    picture = null
    pad.clear()
    for (const view of views) view.forget()
  }),
)
addEventListener('dragover', (event) => {
  event.preventDefault()
  document.body.dataset.over = ''
})
addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) delete document.body.dataset.over
})
addEventListener('drop', (event) => {
  event.preventDefault()
  delete document.body.dataset.over
  const view = views.find(({ part }) => part.contains(event.target))
  for (const file of event.dataTransfer.files) {
    const isModel = file.name.toLowerCase().endsWith('.onnx')
    openFile(file, isModel && event.dataTransfer.files.length === 1 ? view : undefined)
  }
})

/** Open the demo's files where the page is, if they are there. */
async function openDefaults() {
  for (const view of views) {
    const response = await fetch(view.url)
    if (response.ok) await view.open(new Uint8Array(await response.arrayBuffer()), view.url.split('/').pop())
  }
  compare()
  const { decodedBodySize: size } = performance.getEntriesByType('resource').find(({ name }) => name.endsWith(runtime.file)) ?? {}
  const loaded = size ? `, ${megabytes(size)} of WebAssembly, loaded once` : ''
  find('#runtime').textContent = `ONNX Runtime Web ${runtime.version}${loaded}; one thread of the processor.`
}

inTurn(openDefaults).then(() => (document.body.dataset.ready = ''))
