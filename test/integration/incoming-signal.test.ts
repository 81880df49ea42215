/** The pre-incoming point and `cont`: order, all or none, frames that wait, repeating after a fix. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, PortInfo, Switch } from '../../src/index.ts'
import type { TapOptions } from '../../src/port/options.ts'
import { IO, Lab, tapSpec } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import {
  capturedFlows,
  deleteLink,
  flowFrames,
  Holder,
  makeTap,
  numbers,
  tunCalls,
  tunDescriptors,
  tunState,
} from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const NO_SCRIPTS = 'script=no,downscript=no'

let lab: Lab
let netns: string
let sw: Switch
/** Ids of ports that changed, with their states. */
let changes: string[]

beforeEach(() => {
  lab = new Lab()
  netns = lab.netns()
  sw = createSwitch({ io: IO as 'auto', incoming: true })
  changes = []
  sw.events.on('port-changed', ({ id, state }: PortInfo) => changes.push(`${id} ${state}`))
})

afterEach(async () => {
  await sw.close()
  expect(tunDescriptors(process.pid)).toEqual([])
  await lab[Symbol.asyncDispose]()
})

/** A port of the TAP `t${k}`. */
function addTap(k: number, options: Partial<TapOptions> = {}): Promise<PortInfo> {
  const scripts = { script: 'no', downscript: 'no' }
  const tap = { type: 'tap', id: `p${k}`, ifname: `t${k}`, netns, ...scripts } as const
  return sw.addPort({ ...tap, ...options })
}

const states = (): string[] => sw.ports().map(({ id, state }) => `${id} ${state}`)
const held = (k: number): number | undefined => tunState(netns, `t${k}`)?.held

async function messageOf(action: Promise<unknown>): Promise<string> {
  return action.then(
    () => 'no error',
    (error: Error) => error.message,
  )
}

test('D6: 500 frames for each queue wait from the signal to cont, and all arrive in order', async () => {
  makeTap(netns, 4, 'x0')
  // Which queue the kernel chooses for a flow: one flow for each of the four.
  const flowOf: number[] = []
  {
    using holder = new Holder(netns, 4)
    await until('it is up', () => tunState(netns)!.isRunning)
    const flows = numbers(64)
    await lab.send(netns, flowFrames(flows, 1))
    for (const queue of numbers(4)) flowOf[queue] = [...holder.drain(queue).keys()][0]
  }
  expect(new Set(flowOf).size).toBe(4)
  const spec = tapSpec(0, netns, `queues=4,persist=on,${NO_SCRIPTS}`)
  const trace = join(lab.directory, 'trace')
  const daemon = await lab.incoming(lab.controlPath(), trace, '--port', spec)
  const path = join(lab.directory, 'all.pcapng')
  const capture = await daemon.execute<{ id: number }>('capture-start', {
    path,
    ports: ['p0'],
    direction: 'in',
  })
  await daemon.execute('migrate-incoming')
  await until('it is up', () => tunState(netns)!.isRunning)
  await lab.send(netns, flowFrames(flowOf, 500))
  // P7, D6: it is open and is not read. TUN_ calls of the set-up only, and they are over.
  const calls = tunCalls(trace)
  expect(await daemon.port('p0')).toMatchObject({ state: 'open', queues: 4 })
  expect(await daemon.stats('p0')).toMatchObject({ rx_frames: 0 })
  expect(tunCalls(trace).filter((call) => call === 'readFrames')).toEqual([])
  expect(calls.filter((call) => call === 'tunOpen')).toHaveLength(4)
  await daemon.execute('cont')
  expect(await daemon.execute('query-status')).toMatchObject({ status: 'running' })
  await until('all have come', async () => (await daemon.stats('p0'))['rx_frames'] >= 2000)
  expect(await daemon.execute('capture-stop', capture)).toMatchObject({ frames: 2000, dropped: 0 })
  const flows = capturedFlows(path)
  for (const flow of flowOf) expect(flows.get(flow)).toEqual(numbers(500))
})

describe('P2, R3, R4: first in, first out', () => {
  test('the order is that of adding, whatever went and came in between', async () => {
    for (const k of [0, 1, 2, 3]) {
      makeTap(netns, 1, `t${k}`)
      await addTap(k)
    }
    await sw.removePort('p1')
    await addTap(1)
    expect(states()).toEqual(['p0 postponed', 'p2 postponed', 'p3 postponed', 'p1 postponed'])
    await sw.migrateIncoming()
    expect(changes).toEqual(['p0 open', 'p2 open', 'p3 open', 'p1 open'])
  })
})

describe('P1, P5, D1: a port is all of its queues', () => {
  test('it has them, can be captured, wired and set before the signal; all of that holds after it', async () => {
    makeTap(netns, 3, 't0')
    makeTap(netns, 1, 't1')
    const scripts = 'ifname=t0,script=no,downscript=no'
    expect(await addTap(0, { queues: 3 })).toMatchObject({
      state: 'postponed',
      queues: 3,
      info: scripts,
    })
    await addTap(1)
    await sw.addLink('p0', 'p1')
    await sw.setLink('p0', false)
    expect(sw.port('p0')).toMatchObject({ state: 'postponed', link: false, peer: 'p1' })
    await sw.migrateIncoming()
    expect(sw.port('p0')).toMatchObject({ state: 'down', link: false, peer: 'p1', queues: 3 })
    expect(sw.links()).toEqual([['p0', 'p1']])
    expect([held(0), tunDescriptors(process.pid).length]).toEqual([3, 4])
    const carrier = (): string =>
      sh('ip', 'netns', 'exec', netns, 'cat', '/sys/class/net/t0/carrier').trim()
    expect(carrier()).toBe('0')
    await sw.setLink('p0', true)
    expect(carrier()).toBe('1')
  })

  test('a queue that cannot be opened fails all of them, and the error names it', async () => {
    makeTap(netns, 8, 't0')
    const trace = join(lab.directory, 'trace')
    const spec = `tap,id=p0,ifname=t0,netns=${netns},queues=8,persist=on,${NO_SCRIPTS}`
    const daemon = await lab.incoming(lab.controlPath(), trace, '--port', spec)
    const pid = daemon.process.child.pid!
    const descriptors = (): number => readdirSync(`/proc/${pid}/fd`).length
    const before = descriptors()
    // Room for a few more, so that it ends between the first queue and the last.
    const used = new Set(readdirSync(`/proc/${pid}/fd`).map(Number))
    const free = numbers(1024).filter((fd) => !used.has(fd))
    sh('prlimit', `--pid=${pid}`, `--nofile=${free[6]}:`)
    const error = await messageOf(daemon.execute('migrate-incoming'))
    expect(error).toMatch(/^tap p0 queue [1-7]: .*: Too many open files$/)
    expect([held(0), descriptors()]).toEqual([0, before])
    expect(await daemon.port('p0')).toMatchObject({ state: 'postponed', error })
    sh('prlimit', `--pid=${pid}`, '--nofile=1024:')
    await daemon.execute('migrate-incoming')
    expect([held(0), tunDescriptors(pid).length]).toEqual([8, 8])
    await daemon.execute('netdev_del', { id: 'p0' })
    expect([held(0), descriptors()]).toEqual([0, before])
  })
})

describe('R5, R6, R7, R8, D10: one fails', () => {
  test('the first error is told, what this call opened is closed, and it can be repeated', async () => {
    const error = 'tap p2 queue 0: could not configure /dev/net/tun (t2): Device or resource busy'
    const trace = join(lab.directory, 'trace')
    const specs = [0, 1, 2, 3].flatMap((k) => {
      makeTap(netns, k === 2 ? 1 : 4, `t${k}`)
      const queues = k === 2 ? 1 : 4
      return ['--port', `tap,id=p${k},ifname=t${k},netns=${netns},queues=${queues},${NO_SCRIPTS}`]
    })
    const daemon = await lab.incoming(lab.controlPath(), trace, ...specs)
    const pid = daemon.process.child.pid!
    {
      // A TAP with one queue: only TUNSETIFF tells.
      using holder = new Holder(netns, 1, 't2')
      expect(holder.fds).toHaveLength(1)
      await expect(daemon.execute('migrate-incoming')).rejects.toThrow(error)
    }
    const ports = await daemon.execute<PortInfo[]>('query-ports')
    expect(ports.map(({ id, state }) => `${id} ${state}`)).toEqual(
      [0, 1, 2, 3].map((k) => `p${k} postponed`),
    )
    expect(ports.map((port) => port.error)).toEqual([undefined, undefined, error, undefined])
    expect([0, 1, 2, 3].map(held)).toEqual([0, 0, 0, 0])
    expect(tunDescriptors(pid)).toEqual([])
    // Four queues each of the two before it; what came later was not tried.
    const opened = tunCalls(trace).filter((call) => call === 'tunGetIff').length
    expect(opened).toBeGreaterThan(0)
    expect(tunCalls(trace).filter((call) => call === 'tunSetVnetHdrSize')).toHaveLength(2)
    await expect(daemon.execute('cont')).rejects.toThrow('still postponed')
    await daemon.execute('migrate-incoming')
    expect([0, 1, 2, 3].map(held)).toEqual([4, 4, 0, 4])
    expect(tunDescriptors(pid)).toHaveLength(13)
    for (const k of [0, 1, 2, 3]) {
      expect(await daemon.port(`p${k}`)).toMatchObject({ state: 'open' })
      expect(await daemon.port(`p${k}`)).not.toHaveProperty('error')
    }
    await daemon.execute('cont')
  })

  test('R2: the two refusals come before anything is touched', async () => {
    await using normal = createSwitch({ io: IO as 'auto' })
    expect(await messageOf(normal.migrateIncoming())).toBe(
      `'-incoming' was not specified on the command line`,
    )
    await addTap(0)
    await sw.migrateIncoming()
    expect(held(0)).toBe(0)
    const again = 'The incoming migration has already been started'
    await expect(sw.migrateIncoming()).rejects.toMatchObject({ message: again, code: 'INCOMING' })
    await addTap(1)
    expect(await messageOf(sw.migrateIncoming())).toBe(again)
    expect(states()).toEqual(['p0 open', 'p1 postponed'])
    await sw.resume()
    expect(await messageOf(sw.migrateIncoming())).toBe(again)
  })

  test('R1: with nothing postponed the signal is just that', async () => {
    await sw.migrateIncoming()
    expect(sw.runState).toBe('inmigrate')
    await sw.resume()
    expect(sw.runState).toBe('running')
  })

  test('a name that does not exist is made, unless the port is to persist', async () => {
    await addTap(0)
    await addTap(1, { persist: true })
    const missing = `tap p1 queue 0: no interface "t1" in netns ${netns}`
    await expect(sw.migrateIncoming()).rejects.toMatchObject({
      message: missing,
      code: 'TAP_MISSING',
    })
    // The first one was made and, not being persistent, has gone again.
    expect(tunState(netns, 't0')).toBeNull()
    makeTap(netns, 1, 't1')
    await sw.migrateIncoming()
    expect(tunState(netns, 't0')).not.toBeNull()
    expect(states()).toEqual(['p0 open', 'p1 open'])
  })
})

describe('D5: a port that is added after the signal', () => {
  test('stays postponed and is opened by cont, before the first read', async () => {
    makeTap(netns, 1, 't0')
    await sw.addPort({ type: 'memory', id: 'm' })
    await sw.migrateIncoming()
    expect(await addTap(0, { persist: true })).toMatchObject({ state: 'postponed' })
    expect(held(0)).toBe(0)
    // At its failure `cont` fails as a whole.
    deleteLink(netns, 't0')
    await addTap(1)
    const missing = `tap p0 queue 0: no interface "t0" in netns ${netns}`
    expect(await messageOf(sw.resume())).toBe(missing)
    expect(sw.runState).toBe('inmigrate')
    expect(sw.ports().map(({ state, error }) => [state, error])).toEqual([
      ['open', undefined],
      ['postponed', missing],
      ['postponed', undefined],
    ])
    makeTap(netns, 1, 't0')
    await sw.resume()
    expect(sw.runState).toBe('running')
    expect(states()).toEqual(['m open', 'p0 open', 'p1 open'])
    // After the hand-over there is nothing to postpone, and nothing to explain.
    const late = await addTap(2)
    expect(late.state).toBe('open')
    expect(late).not.toHaveProperty('notPostponed')
  })
})

test('D2: a postponed port that is removed is gone: the signal neither opens nor misses it', async () => {
  for (const k of [0, 1, 2]) await addTap(k)
  await sw.removePort('p1')
  await sw.migrateIncoming()
  expect(states()).toEqual(['p0 open', 'p2 open'])
  expect(tunState(netns, 't1')).toBeNull()
})

test('D9: downscript is an option of its own', async () => {
  await addTap(0, { downscript: '/bin/true' })
  expect(sw.port('p0')).toMatchObject({
    state: 'open',
    notPostponed: 'downscript=/bin/true: a script runs when it is closed',
  })
})

test('C1: whatever state they are in, the end of the switch leaves nothing behind', async () => {
  makeTap(netns, 4, 't0')
  await addTap(0, { queues: 4 })
  await sw.migrateIncoming()
  await addTap(1, { queues: 4 })
  await sw.close()
  expect([held(0), tunState(netns, 't1')]).toEqual([0, null])
})

test('C2: where there are no TAPs the signal says so', async () => {
  await addTap(0)
  const platform = Object.getOwnPropertyDescriptor(process, 'platform')!
  Object.defineProperty(process, 'platform', { ...platform, value: 'win32' })
  try {
    expect(await messageOf(sw.migrateIncoming())).toBe('tap p0: tap is not supported on win32')
  } finally {
    Object.defineProperty(process, 'platform', platform)
  }
  expect(states()).toEqual(['p0 postponed'])
})
