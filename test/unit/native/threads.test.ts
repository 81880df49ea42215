/** The shim in worker threads: loaded by several at once, one table of windows for all of them. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { describe, expect, test } from 'vitest'
import { EBADF } from '../../../src/abi/errno.ts'
import { shim } from '../../../src/native/shim.ts'
import { mapWindow, openDescriptors, PAGE, shimPath } from './windows.ts'

/** Starts a thread on CommonJS code; `shim`, `parentPort` and `data` are there. */
function start(code: string, data: unknown): Worker {
  return new Worker(
    `const { parentPort, workerData } = require('node:worker_threads')
    const { path, data } = workerData
    const shim = require(path)
    ${code}`,
    { eval: true, workerData: { path: shimPath, data } },
  )
}

/** The thread's only message, when it has ended well. */
async function result(worker: Worker): Promise<unknown> {
  const [[message], [code]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')])
  expect(code).toBe(0)
  return message
}

/** Map, copy, checksum and unmap many times; answers the numbers of windows of the last round. */
const CHURN = `
  const gate = new Int32Array(data)
  Atomics.add(gate, 0, 1)
  Atomics.notify(gate, 0)
  while (Atomics.load(gate, 0) < 2) Atomics.wait(gate, 0, 1, 10)
  let wrong = 0
  for (let round = 0; round < 500; round++) {
    const id = shim.windowMap(-1, 4096, 0, 0)
    const buffer = shim.windowBuffer(id)
    const bytes = new Uint8Array(buffer)
    const ints = new Int32Array(buffer)
    const mark = round & 0x7f
    bytes.fill(mark, 2048, 2112)
    ints.set([id, 2048, id, 3000, 64])
    if (shim.copyRows(id, 0, 1) !== 1) wrong++
    if (bytes[3000] !== mark || bytes[3063] !== mark || bytes[3064] !== 0) wrong++
    if (shim.windowDetach(buffer) !== 0 || shim.windowUnmap(id) !== 0) wrong++
  }
  parentPort.postMessage(wrong)`

describe('the shim in threads', () => {
  test('is loaded by two at once, which map and unmap without disturbing each other', async () => {
    const gate = new SharedArrayBuffer(4)
    const workers = [start(CHURN, gate), start(CHURN, gate)]
    expect(await Promise.all(workers.map(result))).toEqual([0, 0])
  })

  test('one sees what the other wrote into a window', async () => {
    const window = mapWindow(PAGE)
    window.bytes[10] = 0x11
    const worker = start(
      `const buffer = shim.windowBuffer(data)
      const bytes = new Uint8Array(buffer)
      const seen = bytes[10]
      bytes[11] = 0x22
      parentPort.postMessage([seen, shim.windowLength(data), shim.windowAddress(data),
        shim.windowDetach(buffer), buffer.byteLength])`,
      window.id,
    )
    const address = shim.windowAddress(window.id)
    expect(await result(worker)).toEqual([0x11, PAGE, address, 0, 0])
    expect(window.bytes[11]).toBe(0x22)
  })

  test('a window outlives the thread that mapped it, also when that did not detach', async () => {
    const worker = start(
      `const id = shim.windowMap(-1, 4096, 0, 0)
      new Uint8Array(shim.windowBuffer(id))[5] = 0x55
      parentPort.postMessage(id)`,
      null,
    )
    const id = (await result(worker)) as number
    const buffer = shim.windowBuffer(id) as ArrayBuffer
    expect(new Uint8Array(buffer)[5]).toBe(0x55)
    shim.windowDetach(buffer)
    expect(shim.windowUnmap(id)).toBe(0)
    expect(shim.windowLength(id)).toBe(-EBADF)
  })

  test('a window that one unmapped is gone for the other', async () => {
    const window = mapWindow(PAGE)
    window.ints.set([window.id, 0, window.id, 100, 4])
    expect(shim.windowDetach(window.buffer)).toBe(0)
    const code = 'parentPort.postMessage(shim.windowUnmap(data))'
    expect(await result(start(code, window.id))).toBe(0)
    expect(shim.windowUnmap(window.id)).toBe(-EBADF)
    expect(shim.copyRows(window.id, 0, 1)).toBeLessThan(0)
  })

  test('threads that end leave no descriptors open', async () => {
    const code = `shim.close(shim.eventfd(0, 0o2000000)); parentPort.postMessage(0)`
    // The first thread makes what Node keeps for all later ones.
    await result(start(code, null))
    const before = openDescriptors()
    for (let k = 0; k < 3; k++) await result(start(code, null))
    expect(openDescriptors()).toBeLessThanOrEqual(before)
  })
})
