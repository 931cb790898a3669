// Prepare pictures as the page does, without a browser: lines of JSON {picture, metadata, dims} become lines of
// {dims, data}.

import { createInterface } from 'node:readline'
import { preprocess } from '../preprocess.js'

for await (const line of createInterface({ input: process.stdin })) {
  const { picture, metadata, dims } = JSON.parse(line)
  const made = preprocess(picture, metadata, dims)
  console.log(JSON.stringify({ dims: made.dims, data: [...made.data] }))
}
