/** A thread of ours, from the side that started it. */
import { expect, test } from 'vitest'
import type { WorkerFailure } from '../../../src/native/worker-thread.ts'
import { WorkerThread } from '../../../src/native/worker-thread.ts'

const entry = (code: string): URL =>
  new URL(
    `data:text/javascript,${encodeURIComponent(`
    import { parentPort, workerData } from 'node:worker_threads'
    ${code}`)}`,
  )

/** What was told of it, in order; `over` resolves with its end. */
function start(code: string, wake?: () => void) {
  const told: unknown[] = []
  let ended!: (failure?: WorkerFailure) => void
  const over = new Promise<WorkerFailure | undefined>((resolve) => (ended = resolve))
  const thread = new WorkerThread<string, string>(
    entry(code),
    { word: 'hello' },
    {
      message: (message) => told.push(message),
      ended: (failure) => {
        told.push('ended')
        ended(failure)
      },
    },
    wake,
  )
  return { thread, told, over }
}

test('messages pass both ways, and an end that was asked for is no failure', async () => {
  const { thread, told, over } = start(`
    parentPort.on('message', (message) => {
      if (message === 'end') parentPort.close()
      else parentPort.postMessage(workerData.word + ' ' + message)
    })`)
  thread.post('you')
  await thread.end(() => thread.post('end'))
  expect(await over).toBeUndefined()
  expect(told).toEqual(['hello you', 'ended'])
})

test('an error is told once, with its cause', async () => {
  const { thread, told, over } = start(`throw new RangeError('too much')`)
  const failure = await over
  expect(failure).toMatchObject({ reason: 'too much', cause: expect.any(RangeError) })
  await thread.end()
  expect(told).toEqual(['ended'])
})

test('a thread that ends by itself has failed', async () => {
  const { over } = start('')
  expect(await over).toEqual({ reason: 'its thread ended' })
})

test('an error while it ends is told as well', async () => {
  const { thread, over } = start(`
    parentPort.on('message', () => { throw new Error('at the end') })`)
  await thread.end(() => thread.post('end'))
  expect(await over).toMatchObject({ reason: 'at the end' })
})

test('it is woken when it shall end, and when the process exits, and not after its end', async () => {
  let wakes = 0
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const { thread } = start(`parentPort.once('message', (flag) => Atomics.wait(flag, 0, 0))`, () => {
    wakes++
    Atomics.store(flag, 0, 1)
    Atomics.notify(flag, 0)
  })
  thread.post(flag as never)
  const listeners = process.listenerCount('exit')
  await thread.end()
  expect(wakes).toBe(1)
  expect(process.listenerCount('exit')).toBe(listeners - 1)
})
