// Open the built page in headless Chromium, do what is asked, and print what the page shows:
//   node web/tests/page.mjs build/web < steps.json
// steps.json is a list. Each step has one of
//   drop: paths of files, dropped on the page, or on the model `on` (0 or 1);
//   open: a path, opened by the button of the model `on`, or of the image if there is no `on`;
//   draw: a list of strokes, each a list of points, from 0 to 1;   clear: true;
//   choose: {layer, head} of the model `on`;
//   screenshot: a path, with width and scheme ('light' or 'dark').
// A line of JSON is printed for each step, and for the page as it was at first.

import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { extname, join, normalize } from 'node:path'
import { text } from 'node:stream/consumers'
import chromium from '@sparticuz/chromium'
import puppeteer from 'puppeteer-core'

const KINDS = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' }
const [folder] = process.argv.slice(2)
const steps = JSON.parse(await text(process.stdin))

const server = createServer(async ({ url }, response) => {
  const path = normalize(new URL(url, 'http://host').pathname)
  try {
    const content = await readFile(join(folder, path.endsWith('/') ? `${path}index.html` : path))
    response.writeHead(200, { 'content-type': KINDS[extname(path) || '.html'] ?? 'application/octet-stream' }).end(content)
  } catch {
    response.writeHead(404).end()
  }
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const origin = `http://127.0.0.1:${server.address().port}`

// Of the arguments for other machines, only that for a process that root starts
const browser = await puppeteer.launch({ executablePath: await chromium.executablePath(), headless: 'shell', args: ['--no-sandbox'] })
const page = await browser.newPage()
const problems = []
page.on('pageerror', (error) => problems.push(error.message))
page.on('console', (line) => {
  const missing = line.location().url?.includes('/models/') // a model that was not exported
  if (['error', 'warn'].includes(line.type()) && !missing) problems.push(line.text())
})
page.on('request', (request) => {
  if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(origin)) problems.push(`asked for ${request.url()}`)
})

/** What the page shows, after all that was begun is done. */
async function shown() {
  await page.waitForFunction(() => 'ready' in document.body.dataset && !('busy' in document.body.dataset), { timeout: 120_000 })
  const state = await page.evaluate(() => {
    const words = (part, selector) => part.querySelector(selector)?.textContent ?? null
    return {
      message: document.querySelector('#message').hidden ? null : words(document, '#message'),
      comparison: words(document, '#comparison'),
      runtime: words(document, '#runtime'),
      models: [...document.querySelectorAll('.model')].map((part) => ({
        file: words(part, '.file'),
        bytes: words(part, '.bytes'),
        time: words(part, '.time'),
        attention: part.querySelector('.attention').hidden ? null : words(part, '.own'),
        best: [...part.querySelectorAll('.classes li')].map((item) => ({
          label: Number(item.dataset.label),
          name: item.firstChild.textContent,
          probability: Number(item.dataset.probability),
        })),
      })),
      wide: document.documentElement.scrollWidth > innerWidth,
    }
  })
  console.log(JSON.stringify({ ...state, problems }))
}

async function take(step) {
  const model = step.on === undefined ? '' : `.model:nth-child(${step.on + 1})`
  if (step.drop) {
    const input = await page.evaluateHandle(() => {
      const made = document.createElement('input')
      return Object.assign(made, { type: 'file', multiple: true })
    })
    await input.uploadFile(...step.drop)
    await page.evaluate((input, where) => {
      const dataTransfer = new DataTransfer()
      for (const file of input.files) dataTransfer.items.add(file)
      document.querySelector(where).dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }))
    }, input, model || 'body')
  } else if (step.open) {
    await (await page.$(model ? `${model} .open` : '#picture')).uploadFile(step.open)
  } else if (step.draw) {
    const { x, y, width, height } = await (await page.$('#pad')).boundingBox()
    for (const [start, ...points] of step.draw) {
      await page.mouse.move(x + start[0] * width, y + start[1] * height)
      await page.mouse.down()
      for (const point of points) await page.mouse.move(x + point[0] * width, y + point[1] * height, { steps: 4 })
      await page.mouse.up()
    }
  } else if (step.clear) {
    await page.click('#clear')
  } else if (step.choose) {
    for (const [name, value] of Object.entries(step.choose)) await page.select(`${model} .${name}`, value)
  } else if (step.screenshot) {
    await page.setViewport({ width: step.width, height: 800 })
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: step.scheme }])
    await page.screenshot({ path: step.screenshot, fullPage: true })
  }
}

try {
  await page.setViewport({ width: 1280, height: 900 })
  await page.goto(`${origin}/`)
  await shown()
  for (const step of steps) {
    await take(step)
    await shown()
  }
} finally {
  await browser.close()
  server.close()
}
