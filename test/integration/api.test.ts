/** The library API as a program uses it, from the built package. */
import { constants, PerformanceObserver } from 'node:perf_hooks'
import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import type {
  createSwitch as CreateSwitch,
  ConfigError as ConfigErrorClass,
} from '../../src/index.ts'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { IO } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'
import { tagged } from '../support/vlan-frames.ts'

const { createSwitch, ConfigError } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
  ConfigError: typeof ConfigErrorClass
}
const io = IO as 'auto'

test('frames pass between memory ports, are counted, and the switch disposes of itself', async () => {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'a' })
  await sw.addPort({ type: 'memory', id: 'b' })
  const [a, b] = [sw.memoryPort('a'), sw.memoryPort('b')]
  const next = b.next()
  expect(a.send(frame(255, 1, 42))).toBe(true)
  expect(await next).toEqual(frame(255, 1, 42))
  expect(b.receive()).toBeNull()
  expect(sw.port('b').counters).toMatchObject({ tx_frames: 1, tx_bytes: 60 })
  expect(await sw.macTable()).toEqual([
    { mac: '02:00:00:00:00:01', vlan: 0, port: 'a', ageS: expect.any(Number) },
  ])
  const aborted = b.next({ signal: AbortSignal.timeout(20) })
  await expect(aborted).rejects.toThrow()
})

test('a capture to a stream is a complete pcapng', async () => {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'a' })
  await sw.addPort({ type: 'memory', id: 'b' })
  const stream = new PassThrough()
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  const capture = await sw.startCapture({ to: stream, direction: 'in' })
  for (let n = 0; n < 100; n++) sw.memoryPort('a').send(frame(255, 1, n, 60 + n))
  await until('they are forwarded', () => sw.port('b').counters.tx_frames === 100)
  expect(await capture.stop()).toMatchObject({ frames: 100, dropped: 0 })
  const bytes = new Uint8Array(Buffer.concat(chunks))
  const lengths: number[] = []
  readPcapng(bytes, { frame: (_offset, length) => void lengths.push(length) })
  expect(lengths).toEqual(Array.from({ length: 100 }, (_, n) => 60 + n))
})

test('V: a capture has a frame as it came in, and with the tag with which it left', async () => {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'a', tag: 10 })
  await sw.addPort({ type: 'memory', id: 'b' })
  await sw.addPort({ type: 'memory', id: 'c', tag: 10 })
  const stream = new PassThrough()
  const chunks: Buffer[] = []
  stream.on('data', (chunk: Buffer) => chunks.push(chunk))
  const capture = await sw.startCapture({ to: stream, direction: 'both' })
  const sent = frame(255, 1, 42)
  sw.memoryPort('a').send(sent)
  await until('it is forwarded', () => sw.port('c').counters.tx_frames === 1)
  await capture.stop()
  const bytes = new Uint8Array(Buffer.concat(chunks))
  const frames: Uint8Array[] = []
  readPcapng(bytes, {
    frame: (offset, length) => void frames.push(bytes.slice(offset, offset + length)),
  })
  const leaving = [frames[1], frames[2]].toSorted((one, other) => one.length - other.length)
  expect([frames[0], ...leaving]).toEqual([sent, sent, tagged(sent, 10)])
  expect(sw.memoryPort('b').receive()).toEqual(tagged(sent, 10))
})

test('errors have codes, and nothing half done stays', async () => {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'a' })
  await expect(sw.addPort({ type: 'memory', id: 'a' })).rejects.toMatchObject({
    code: 'DUPLICATE_ID',
  })
  await expect(sw.removePort('b')).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  await expect(sw.addLink('a', 'a')).rejects.toMatchObject({ code: 'BAD_LINK' })
  await expect(sw.addPort({ type: 'pcap', id: 'p', replay: '/nonexistent' })).rejects.toMatchObject(
    {
      code: 'CAPTURE_FILE',
    },
  )
  await expect(sw.startCapture({ to: { path: '/nonexistent/x' } })).rejects.toMatchObject({
    code: 'CAPTURE_FILE',
  })
  expect(() => sw.memoryPort('a').send(new Uint8Array(5))).toThrow(ConfigError)
  await sw.addPort({ type: 'virtio-net', id: 'v', driver: 'sink' })
  const thrown = (code: string): Error => expect.objectContaining({ code }) as Error
  expect(() => sw.memoryPort('v')).toThrow(thrown('NOT_A_MEMORY_PORT'))
  expect(() => sw.virtioNetPort('a')).toThrow(thrown('VIRTIO_NET'))
  await sw.removePort('v')
  expect(sw.ports().map(({ id }) => id)).toEqual(['a'])
  await sw.close()
  await expect(sw.addPort({ type: 'memory', id: 'c' })).rejects.toMatchObject({
    code: 'SWITCH_CLOSED',
  })
  expect(() => createSwitch({ macTableSize: 1 })).toThrow('macTableSize')
})

test('paused, frames wait in the port; resumed, they pass', async () => {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'a' })
  await sw.addPort({ type: 'memory', id: 'b' })
  await sw.pause()
  expect(sw.runState).toBe('paused')
  for (let n = 0; n < 256; n++) expect(sw.memoryPort('a').send(frame(255, 1, n))).toBe(true)
  expect(sw.memoryPort('a').send(frame(255, 1))).toBe(false)
  await sw.resume()
  await until('they pass', () => sw.port('b').counters.tx_frames === 256)
})

test('what is asked is true when it is answered, also while the engine sleeps', async () => {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'a' })
  await sw.addPort({ type: 'memory', id: 'b' })
  for (let sent = 0; sent < 50; sent++) {
    sw.memoryPort('a').send(frame(255, 1 + sent))
    await sw.memoryPort('b').next()
    expect((await sw.currentCounters()).mac_entries).toBe(1 + sent)
  }
})

test(
  'a thousand memory ports are no thousand collections of garbage',
  { timeout: 60_000 },
  async () => {
    const MAJOR = constants.NODE_PERFORMANCE_GC_MAJOR
    let collections = 0
    const observer = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        if ((entry as unknown as { detail: { kind: number } }).detail.kind === MAJOR) collections++
      }
    })
    observer.observe({ entryTypes: ['gc'] })
    await using sw = createSwitch({ io })
    for (let k = 0; k < 1024; k++) await sw.addPort({ type: 'memory', id: `m${k}` })
    // Entries are told of in a later turn of the loop.
    await new Promise((resolve) => setImmediate(resolve))
    observer.disconnect()
    expect(collections).toBeLessThan(50)
    sw.memoryPort('m0').send(frame(255, 1, 42))
    expect(await sw.memoryPort('m1023').next()).toEqual(frame(255, 1, 42))
  },
)
