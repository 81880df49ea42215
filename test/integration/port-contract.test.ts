/**
 * What every kind of port owes to the switch, whatever is at its far end: frames both ways and whole,
 * held frames that wait, links, captures, counters, another port in its place. Runs once per I/O tier.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, PortOptions, Switch } from '../../src/index.ts'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { FrontEnd } from '../support/front-end.ts'
import { IO, Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { addPair } from '../support/raw-lab.ts'
import { frame } from '../support/sim.ts'
import { numbers } from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const FRAMES = 40
const VERSION_1 = 1n << 32n
/** Frames of all lengths that pass everywhere. */
const lengthOf = (number: number): number => 60 + ((number * 97) % 1455)

/** Whoever is at the far end of the port under test. */
interface FarEnd {
  send(frames: readonly Uint8Array[]): Promise<void> | void
  /** From now on what arrives is taken; the promise has so many frames, or fails. */
  receive(count: number): Promise<() => Promise<string[]>>
  close?(): void
}

interface Kind {
  readonly name: string
  /** What the far end needs before the port is there; the port's options. */
  prepare(): PortOptions
  /** Once the port is there. */
  connect(options: PortOptions): Promise<FarEnd> | FarEnd
}

let lab: Lab
let sw: Switch
let netns: string

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** A host with an interface x0, whose frames packet sockets send and receive. */
const hostEnd = (): FarEnd => ({
  send: (frames) => lab.send(netns, frames.map(hex)),
  receive: async (count) => {
    const receiver = await lab.receive(netns, count)
    return () => receiver.frames()
  },
})

/** A far end that is asked for what it has. */
function polled(take: () => Uint8Array | null): FarEnd['receive'] {
  return (count) =>
    Promise.resolve(async () => {
      const found: string[] = []
      await until(`${count} frames have come`, () => {
        for (let one = take(); one !== null; one = take()) found.push(hex(one))
        return found.length >= count
      })
      return found
    })
}

const KINDS: readonly Kind[] = [
  {
    name: 'tap',
    prepare: () => ({ type: 'tap', id: 'x', ifname: 'x0', netns, up: true }),
    connect: hostEnd,
  },
  {
    name: 'raw-socket',
    prepare: () => {
      const uplink = lab.netns()
      addPair(uplink, 'u0', netns)
      return { type: 'raw-socket', id: 'x', ifname: 'u0', netns: uplink }
    },
    connect: hostEnd,
  },
  {
    name: 'raw-socket without vnet_hdr, of two queues',
    prepare: () => {
      const uplink = lab.netns()
      addPair(uplink, 'u0', netns)
      return {
        type: 'raw-socket',
        id: 'x',
        ifname: 'u0',
        netns: uplink,
        vnet_hdr: false,
        queues: 2,
      }
    },
    connect: hostEnd,
  },
  {
    name: 'virtio-net',
    prepare: () => ({ type: 'virtio-net', id: 'x' }),
    connect: async () => {
      const port = sw.virtioNetPort('x')
      await port.negotiate(VERSION_1)
      return {
        send: async (frames) => {
          for (const one of frames) await until('there is a buffer', () => port.send(one))
        },
        receive: polled(() => port.receive()?.frame ?? null),
      }
    },
  },
  {
    name: 'memory',
    prepare: () => ({ type: 'memory', id: 'x' }),
    connect: () => {
      const port = sw.memoryPort('x')
      return {
        send: async (frames) => {
          for (const one of frames) await until('there is room', () => port.send(one))
        },
        receive: polled(() => port.receive()),
      }
    },
  },
  {
    name: 'vhost-user',
    prepare: () => ({ type: 'vhost-user', id: 'x', path: join(lab.directory, 'guest.sock') }),
    connect: async (options) => {
      const guest = FrontEnd.connect((options as { path: string }).path)
      await guest.start()
      guest.post(FRAMES + 10)
      await until('it is connected', () => sw.port('x').state === 'connected')
      return {
        send: (frames) => {
          for (const one of frames) guest.transmit(one)
        },
        receive: (count) =>
          Promise.resolve(async () => {
            const found: string[] = []
            while (found.length < count) found.push(hex((await guest.receive()).frame))
            return found
          }),
        close: () => guest.close(),
      }
    },
  },
]

let far: FarEnd | undefined

beforeEach(() => {
  lab = new Lab()
  netns = lab.netns()
  sw = createSwitch({ io: IO as 'auto' })
})

afterEach(async () => {
  far?.close?.()
  far = undefined
  await sw.close()
  await lab[Symbol.asyncDispose]()
})

const framesFrom = (source: number, first = 0, count = FRAMES): Uint8Array[] =>
  numbers(count).map((n) => frame(255, source, first + n, lengthOf(first + n)))

/** What the switch's other port is given. */
async function received(id: string, count: number): Promise<string[]> {
  const port = sw.memoryPort(id)
  const found: string[] = []
  await until(`${id} has ${count} frames`, () => {
    for (let one = port.receive(); one !== null; one = port.receive()) found.push(hex(one))
    return found.length >= count
  })
  return found
}

async function add(kind: Kind, isHeld = false): Promise<PortOptions> {
  const options = kind.prepare()
  await sw.addPort(options, undefined, { isHeld })
  far = await kind.connect(options)
  return options
}

/** Frames of the file that a capture wrote, as `in` or `out` says. */
function captured(path: string): string[] {
  const bytes = new Uint8Array(readFileSync(path))
  const found: string[] = []
  readPcapng(bytes, {
    frame: (offset, length) => void found.push(hex(bytes.subarray(offset, offset + length))),
  })
  return found
}

describe.each(KINDS)('a $name port', (kind) => {
  test('passes frames both ways, in order and whole, and counts them', async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    await add(kind)
    const sent = framesFrom(1)
    await far!.send(sent)
    expect(await received('m', FRAMES)).toEqual(sent.map(hex))
    const answers = framesFrom(2, 500)
    const arrived = await far!.receive(FRAMES)
    for (const one of answers) await until('there is room', () => sw.memoryPort('m').send(one))
    expect(await arrived()).toEqual(answers.map(hex))
    const bytes = (frames: readonly Uint8Array[]): number =>
      frames.reduce((sum, { length }) => sum + length, 0)
    await sw.currentCounters()
    const { counters } = sw.port('x')
    expect(counters).toMatchObject({
      rx_frames: FRAMES,
      rx_bytes: bytes(sent),
      tx_frames: FRAMES,
      tx_bytes: bytes(answers),
    })
    const dropped = Object.entries(counters).filter(([name, n]) => name.includes('drop') && n > 0)
    expect(dropped).toEqual([])
    const macs = await sw.macTable()
    expect(macs.find(({ port }) => port === 'x')?.mac).toBe('02:00:00:00:00:01')
  })

  test('keeps what comes while it is held, or the switch pauses', async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    await add(kind, true)
    const first = framesFrom(1, 0, 10)
    await far!.send(first)
    expect(sw.memoryPort('m').receive()).toBeNull()
    await sw.release(['x'])
    expect(await received('m', 10)).toEqual(first.map(hex))
    for (const [n, [stop, go]] of [
      [() => sw.pause(), () => sw.resume()] as const,
      [() => sw.hold(['x']), () => sw.release(['x'])] as const,
    ].entries()) {
      await stop()
      const held = framesFrom(1, 10 * (n + 1), 10)
      await far!.send(held)
      await sw.currentCounters()
      expect(sw.memoryPort('m').receive()).toBeNull()
      await go()
      expect(await received('m', 10)).toEqual(held.map(hex))
    }
  })

  test('drops and counts while its link is down', async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    await add(kind)
    await far!.send(framesFrom(1, 0, 1))
    await received('m', 1)
    await sw.setLink('x', false)
    expect(sw.port('x')).toMatchObject({ link: false, state: 'down' })
    const before = sw.port('x').counters.tx_frames
    sw.memoryPort('m').send(frame(255, 2, 1))
    await until('it is dropped', () => sw.port('x').counters.tx_drop_link_down === 1)
    expect(sw.port('x').counters.tx_frames).toBe(before)
    await sw.setLink('x', true)
    const arrived = await far!.receive(1)
    sw.memoryPort('m').send(frame(255, 2, 2))
    expect(await arrived()).toEqual([hex(frame(255, 2, 2))])
  })

  test('is alone with its peer on a link, and back on the switch without', async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    await sw.addPort({ type: 'memory', id: 'other' })
    await add(kind)
    await sw.addLink('x', 'm')
    await far!.send(framesFrom(1, 0, 5))
    expect(await received('m', 5)).toEqual(framesFrom(1, 0, 5).map(hex))
    const arrived = await far!.receive(1)
    sw.memoryPort('other').send(frame(255, 3, 1))
    sw.memoryPort('m').send(frame(255, 2, 7))
    expect(await arrived()).toEqual([hex(frame(255, 2, 7))])
    expect(sw.memoryPort('other').receive()).toBeNull()
    await sw.removeLink('x', 'm')
    await far!.send(framesFrom(1, 5, 5))
    expect(await received('other', 5)).toEqual(framesFrom(1, 5, 5).map(hex))
  })

  test('is captured as frames come in and go out', async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    await add(kind)
    const path = join(lab.directory, 'capture.pcapng')
    const capture = await sw.startCapture({ to: { path }, ports: ['x'], direction: 'both' })
    await far!.send(framesFrom(1, 0, 5))
    await received('m', 5)
    const arrived = await far!.receive(5)
    for (const one of framesFrom(2, 5, 5)) sw.memoryPort('m').send(one)
    await arrived()
    await capture.stop()
    expect(captured(path)).toEqual([...framesFrom(1, 0, 5), ...framesFrom(2, 5, 5)].map(hex))
  })

  test('is removed and added again, with nothing left of it', async () => {
    await sw.addPort({ type: 'memory', id: 'm' })
    const options = await add(kind)
    for (let round = 0; round < 3; round++) {
      await far!.send(framesFrom(1, round, 1))
      expect(await received('m', 1)).toEqual(framesFrom(1, round, 1).map(hex))
      far!.close?.()
      far = undefined
      await sw.removePort('x')
      expect(sw.ports().map(({ id }) => id)).toEqual(['m'])
      expect((await sw.macTable()).filter(({ port }) => port === 'x')).toEqual([])
      sw.memoryPort('m').send(frame(255, 2, round))
      await until('nobody gets it', () => sw.port('m').counters.rx_drop_no_port === round + 1)
      // Its number is another's meanwhile.
      await sw.addPort({ type: 'memory', id: 'between' })
      await sw.removePort('between')
      await sw.addPort(options)
      far = await kind.connect(options)
      expect(sw.port('x').counters).toMatchObject({ rx_frames: 0, tx_frames: 0 })
    }
  })
})
