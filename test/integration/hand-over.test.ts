/** A switch on real TAPs that another one takes over, as often as one likes: no frame is lost, and nothing is set. */
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import type {
  createSwitch as CreateSwitch,
  HandedSwitch,
  MacEntry,
  Switch,
} from '../../src/index.ts'
import { shim } from '../../src/native/shim.ts'
import { exchange, moveSwitch, numbers, passOn, received } from '../support/hand-over.ts'
import { frameHex, frameNumber, IO, Lab } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import { makeTap } from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const io = IO as 'auto'
const IFNAME = 'x0'

const made: Switch[] = []
afterEach(async () => {
  for (const sw of made.splice(0)) await sw.close()
})

function make(incoming = false): Switch {
  const sw = createSwitch({ io, incoming, macAgingS: 1000 })
  made.push(sw)
  return sw
}

/** A switch with a TAP `p0`, `p1` ... in each namespace, which hold more frames than a pause could ever make wait. */
async function star(lab: Lab, count: number, more: object = {}): Promise<[Switch, string[]]> {
  const sw = make()
  const netns = Array.from({ length: count }, () => lab.netns())
  for (const [k, name] of netns.entries()) {
    await sw.addPort({ type: 'tap', id: `p${k}`, ifname: IFNAME, netns: name, up: true, ...more })
    sh('ip', '-n', name, 'link', 'set', IFNAME, 'txqueuelen', '20000')
    lab.address(name, `10.0.0.${k + 1}`)
  }
  return [sw, netns]
}

test('H4, H5, H11, H16: taken back and handed over again and again, frames of two directions are there once and in order', async () => {
  await using lab = new Lab()
  let [sw, netns] = await star(lab, 2)
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  const count = 12_000
  let isOver = false
  let moves = 0
  const pauses: number[] = []
  const got = exchange(lab, netns, count, async () => {
    await until('frames pass', () => sw.port('p1').counters.rx_frames > 100)
    while (!isOver && moves < 30) {
      if (moves++ % 3 === 0) {
        await sw.handOver()
        await sw.takeBack()
      } else {
        const next = make(true)
        pauses.push(await moveSwitch(sw, next))
        sw = next
      }
    }
  })
  const [there, back] = await got.finally(() => (isOver = true))
  expect(there).toEqual(numbers(0, count))
  expect(back).toEqual(numbers(0, count))
  expect(moves).toBeGreaterThan(5)
  // What was counted goes on to be: all frames of the whole time, whoever has forwarded them.
  for (const { counters } of sw.ports()) expect(counters.rx_frames).toBeGreaterThanOrEqual(count)
  // Hosts may be asking for each other once more.
  await until('all that have come have left', async () => {
    await sw.currentCounters()
    const [a, b] = ['p0', 'p1'].map((id) => sw.port(id).counters)
    return a.rx_frames === b.tx_frames && b.rx_frames === a.tx_frames
  })
  console.log(
    `${moves} moves, pause at most ${Math.max(...pauses).toFixed(1)} ms, median ${pauses.toSorted((a, b) => a - b)[pauses.length >> 1].toFixed(1)} ms`,
  )
})

/** The table itself has an order of its own in each switch. */
const sortedMacs = async (sw: Switch): Promise<MacEntry[]> =>
  (await sw.macTable()).toSorted((a, b) => (a.mac < b.mac ? -1 : 1))

test('M3: mirrors go on, and the output takes nothing but copies', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 3)
  const span = { name: 'span', selectSrcPort: ['p0'], outputPort: 'p2' }
  await sw.addMirror(span)
  const first = await lab.receive(netns[2], 1)
  await lab.send(netns[0], [frameHex('02:00:00:00:00:02', '02:00:00:00:00:01', 1)])
  await first.frames()
  const [{ frames, bytes }] = sw.mirrors()
  expect(frames).toBeGreaterThan(0)
  const next = make(true)
  await moveSwitch(sw, next)
  expect(next.mirrors()).toMatchObject([{ options: span, missing: [], frames, bytes }])
  const receiver = await lab.receive(netns[2], 1)
  await lab.send(netns[1], [frameHex('ff:ff:ff:ff:ff:ff', '02:00:00:00:00:02', 1)])
  await lab.send(netns[0], [frameHex('02:00:00:00:00:02', '02:00:00:00:00:01', 2)])
  expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual([2])
})

test('M4: mirrors into a VLAN go on, and nothing is learnt in it', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 3)
  const rspan = { name: 'rspan', selectSrcPort: ['p0'], outputVlan: 100 }
  await sw.addMirror(rspan)
  const next = make(true)
  await moveSwitch(sw, next)
  expect(next.mirrors()).toMatchObject([{ options: rspan, missing: [] }])
  const receiver = await lab.receiveTagged(netns[2], 40, 1500)
  const [to, from] = ['02:00:00:00:00:02', '02:00:00:00:00:01']
  await lab.send(netns[0], [frameHex(to, from, 2)])
  await lab.send(netns[1], [frameHex(from, to, 3, 64, '81000064')])
  await until('both have come', () =>
    ['p0', 'p1'].every((id) => next.port(id).counters.rx_frames > 0),
  )
  const frames = await receiver.frames()
  expect(frames).toContain(frameHex(to, from, 2, 64, '81000064'))
  expect(frames).toContain(frameHex(from, to, 3, 64, '81000064'))
  expect((await next.macTable()).filter(({ vlan }) => vlan === 100)).toEqual([])
})

test('M7: copies to another host go on with the next sequence number', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 2)
  const options = { selectSrcPort: ['p0'], erspan: { remoteIp: '127.0.0.1', sessionId: 3 } }
  await sw.addMirror({ name: 'm', ...options })
  const send = async (one: Switch, count: number): Promise<void> => {
    const [{ frames: before }] = one.mirrors()
    const to = '02:00:00:00:00:02'
    const sent = Array.from({ length: count }, (_, n) => frameHex(to, '02:00:00:00:00:01', n))
    await lab.send(netns[0], sent)
    await until('they are copied and sent', () => {
      const [{ frames, counters }] = one.mirrors()
      return frames >= before + count && counters?.tx_frames === frames
    })
  }
  await send(sw, 5)
  const { frames } = sw.mirrors()[0]
  const next = make(true)
  const handed = await sw.handOver()
  expect(handed.sequences).toEqual({ m: frames })
  await next.takeOver(received(handed))
  await sw.handedOver()
  await next.resume()
  await send(next, 3)
  const [mirror] = next.mirrors()
  expect(mirror.counters).toMatchObject({ tx_frames: mirror.frames, tx_drop_error: 0 })
  const again = await next.handOver()
  expect(mirror.frames).toBe(frames + 3)
  expect(again.sequences).toEqual({ m: mirror.frames })
  // One that knows nothing of them tells none.
  const { sequences: _, mirrored: _counted, ...older } = again
  const last = make(true)
  await last.takeOver(received(older))
  await next.handedOver()
  await last.resume()
  await send(last, 1)
  expect((await last.handOver()).sequences).toEqual({ m: last.mirrors()[0].frames })
  await last.takeBack()
})

test('H13: links, MAC table with ages, counters, link states and the run state are the same afterwards', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 4)
  await sw.addLink('p2', 'p3')
  await sw.setLink('p1', false)
  await sw.setLink('p1', true)
  await sw.setLink('p3', false)
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  const start = performance.now()
  await sw.pause()
  const before = { ports: sw.ports(), links: sw.links(), macs: await sortedMacs(sw) }
  const counters = await sw.currentCounters()
  const next = make(true)
  await moveSwitch(sw, next)
  expect(sw.runState).toBe('shutdown')
  expect(next.runState).toBe('paused')
  expect(next.ports()).toEqual(before.ports)
  expect(next.links()).toEqual(before.links)
  const macs = await sortedMacs(next)
  expect(macs.map(({ mac, port }) => ({ mac, port }))).toEqual(
    before.macs.map(({ mac, port }) => ({ mac, port })),
  )
  const passedS = Math.ceil((performance.now() - start) / 1000)
  for (const [k, { ageS }] of macs.entries()) {
    expect(ageS).toBeGreaterThanOrEqual(before.macs[k].ageS)
    expect(ageS).toBeLessThanOrEqual(before.macs[k].ageS + passedS + 1)
  }
  const { sleeps: _, ...same } = counters
  expect(await next.currentCounters()).toMatchObject(same)
  await next.resume()
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  await next.setLink('p3', true)
  lab.address(netns[2], '10.1.0.1')
  lab.address(netns[3], '10.1.0.2')
  expect(lab.ping(netns[2], '10.1.0.2')).toBe(3)
})

test.each([
  ['another TAP', /is of x1, not of x0/, otherTap],
  ['a socket', /is not a TAP/, () => shim.socketUnix(1)],
])(
  'H9, H11: %s in the place of a queue is refused by name, and the source goes on',
  async (_what, text, open) => {
    await using lab = new Lab()
    const [sw, netns] = await star(lab, 2)
    expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
    const before = openTaps()
    const handed = received(await sw.handOver())
    const wrong = open(netns[0])
    const next = make(true)
    await expect(next.takeOver(withFd(handed, 1, wrong))).rejects.toMatchObject({
      code: 'HAND_OVER',
      port: 'p1',
      message: expect.stringMatching(text) as string,
    })
    expect(next.ports()).toEqual([])
    // All that it was given is closed, what it had taken already included.
    expect(openTaps()).toBe(before)
    await sw.takeBack()
    expect(sw.runState).toBe('running')
    expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  },
)

/** Descriptors of this process. */
function openTaps(): number {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return links.filter((link) => link === '/dev/net/tun').length
}

function withFd(handed: HandedSwitch, port: number, fd: number): HandedSwitch {
  const ports = handed.ports.map((one, k) => {
    if (k !== port) return one
    shim.close(one.fds[0])
    return { ...one, fds: [fd] }
  })
  return { ...handed, ports }
}

function otherTap(netns: string): number {
  makeTap(netns, 1, 'x1')
  const netnsFd = shim.open(`/run/netns/${netns}`, 0o2000000)
  const stage = new Int32Array(1)
  const fd = shim.tunOpen(netnsFd, '/dev/net/tun', 'x1', 0x5002, new Uint8Array(16), stage)
  shim.close(netnsFd)
  if (fd < 0) throw new Error(`x1: ${fd}`)
  return fd
}

test('H9: a header length or an attach state that is not what was said is refused', async () => {
  await using lab = new Lab()
  const [sw] = await star(lab, 1, { queues: 2 })
  const handed = received(await sw.handOver())
  const [port] = handed.ports
  const state = port.state as { shape: { vnetHdrLength: number; attached: boolean[] } }
  const withShape = (shape: object): HandedSwitch => ({
    ...handed,
    ports: [
      {
        ...port,
        fds: port.fds.map(passOn),
        state: { ...state, shape: { ...state.shape, ...shape } },
      },
    ],
  })
  const next = make(true)
  const refused = (message: RegExp): object => ({
    code: 'HAND_OVER',
    message: expect.stringMatching(message) as string,
  })
  await expect(next.takeOver(withShape({ vnetHdrLength: 14 }))).rejects.toMatchObject(
    refused(/of queue 0 has a vnet_hdr of \d+ bytes, not of 14/),
  )
  await expect(next.takeOver(withShape({ attached: [true, false] }))).rejects.toMatchObject(
    refused(/of queue 1 is attached, and was detached/),
  )
  await expect(next.takeOver(withShape({ attached: [true] }))).rejects.toMatchObject(
    refused(/2 descriptors for 1 queues/),
  )
  // It can still take over the right one.
  await next.takeOver(handed)
  await next.resume()
  await sw.handedOver()
  expect(next.port('p0').queues).toBe(2)
})

test('H11: of a preview nothing is left when the source ends before the rest comes', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 2, { persist: true })
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  const next = make(true)
  const preview = received(await sw.previewHandOver())
  expect(await next.prepareTakeOver(await sw.outlineHandOver(), preview)).toEqual(['p0', 'p1'])
  expect(openTaps()).toBe(4)
  // The one that has the frames goes on.
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  await sw.close()
  await next.dropPreview()
  expect(openTaps()).toBe(0)
  await next.migrateIncoming()
  await next.resume()
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
})

test('H9: what has changed since the preview crosses as it is now', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 2, { queues: 2 })
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  const next = make(true)
  const preview = received(await sw.previewHandOver())
  const previewed = await next.prepareTakeOver(await sw.outlineHandOver(), preview)
  await sw.setLink('p0', false)
  // As it was, with the same numbers of descriptors.
  await sw.removePort('p1')
  const options = { type: 'tap', ifname: IFNAME, netns: netns[1], up: true, queues: 2 } as const
  await sw.addPort({ id: 'p1', ...options })
  const other = lab.netns()
  await sw.addPort({ type: 'tap', id: 'p2', ifname: IFNAME, netns: other, up: true })
  lab.address(other, '10.0.0.3')
  await sw.setLink('p0', true)
  const handed = received(await sw.handOver([], { previewed }))
  expect(handed.previewed?.map(({ id }) => id)).toEqual(['p0'])
  expect(handed.ports.map(({ id }) => id)).toEqual(['p1', 'p2'])
  expect(handed.macs).not.toBeNull()
  await next.takeOver(handed)
  await next.resume()
  await sw.handedOver()
  await sw.close()
  expect(next.ports().map(({ id }) => id)).toEqual(['p0', 'p1', 'p2'])
  expect(openTaps()).toBe(5)
  expect(lab.ping(netns[0], '10.0.0.3')).toBe(3)
})

test('H12: the down-script, and the end of a TAP that is not persistent, are the business of whoever has it', async () => {
  await using lab = new Lab()
  const log = join(lab.directory, 'scripts')
  const script = join(lab.directory, 'script')
  writeFileSync(script, `#!/bin/sh\necho "$0 $1" >> ${log}\n`)
  chmodSync(script, 0o755)
  const [sw, netns] = await star(lab, 1, { downscript: script })
  const next = make(true)
  await moveSwitch(sw, next)
  expect(existsSync(log)).toBe(false)
  expect(lab.exec(netns[0], 'ip', '-o', 'link', 'show', IFNAME)).toContain('UP')
  await next.close()
  expect(readFileSync(log, 'utf8')).toBe(`${script} ${IFNAME}\n`)
  expect(() => lab.exec(netns[0], 'ip', 'link', 'show', IFNAME)).toThrow(/does not exist/)
})

test('H1: what is left out is closed here, opened there, and opened again when it is taken back', async () => {
  await using lab = new Lab()
  const [sw, netns] = await star(lab, 1)
  const other = lab.netns()
  makeTap(other, 1)
  await sw.addPort({ type: 'tap', id: 'p1', ifname: IFNAME, netns: other })
  lab.address(other, '10.0.0.2')
  await sw.addPort({ type: 'memory', id: 'm' })
  await expect(sw.outlineHandOver(['m'])).resolves.toMatchObject({
    ports: [{ id: 'p0' }, { id: 'p1' }, { id: 'm', isExcluded: true }],
  })
  await expect(sw.outlineHandOver()).rejects.toMatchObject({
    code: 'HAND_OVER',
    message: 'port "m": a memory port cannot be handed over',
  })
  await expect(sw.handOver(['p0', 'm'])).rejects.toMatchObject({
    message: expect.stringContaining(
      'port "p0": cannot be left out: its TAP is not persistent',
    ) as string,
  })
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  await sw.handOver(['p1', 'm'])
  await sw.takeBack()
  expect(sw.ports().map(({ state }) => state)).toEqual(['open', 'open', 'open'])
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  const next = make(true)
  await moveSwitch(sw, next, ['p1', 'm'])
  expect(next.ports().map(({ id }) => id)).toEqual(['p0', 'p1', 'm'])
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  expect(next.port('p0').counters.rx_frames).toBeGreaterThanOrEqual(9)
})

test('H1: a device with a driver of ours that is left out is made anew with its address', async () => {
  const sw = make()
  await sw.addPort({ type: 'virtio-net', id: 'v', driver: 'generate' })
  const addresses = async (one: Switch): Promise<string[]> => {
    const before = one.port('v').counters.rx_frames
    await until('it sends', () => one.port('v').counters.rx_frames > before)
    return (await one.macTable()).map(({ mac }) => mac)
  }
  const [mac] = await addresses(sw)
  await sw.handOver(['v'])
  await sw.takeBack()
  expect(await addresses(sw)).toEqual([mac])
  const next = make(true)
  await moveSwitch(sw, next, ['v'])
  expect(await addresses(next)).toEqual([mac])
})

test('changes wait until it is known whose the switch is; one that was handed over takes none', async () => {
  await using lab = new Lab()
  const [sw] = await star(lab, 1)
  await sw.handOver()
  let isDone = false
  const change = sw.setLink('p0', false).then(() => (isDone = true))
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(isDone).toBe(false)
  await sw.takeBack()
  await change
  expect(sw.port('p0').link).toBe(false)
  await expect(sw.takeBack()).rejects.toMatchObject({ code: 'HAND_OVER' })
  const handed = received(await sw.handOver())
  const late = sw.setLink('p0', true).catch((error: { code: string }) => error.code)
  await sw.handedOver()
  expect(await late).toBe('SWITCH_CLOSED')
  expect(sw.runState).toBe('postmigrate')
  const next = make(true)
  await next.takeOver(handed)
  await expect(next.takeOver(handed)).rejects.toMatchObject({ code: 'INCOMING' })
  await expect(next.handOver()).rejects.toMatchObject({ code: 'HAND_OVER' })
})
