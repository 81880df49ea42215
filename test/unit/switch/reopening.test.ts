/** A port follows its interface: what is asked, in which order, and what becomes of failures. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { StateError } from '../../../src/errors.ts'
import type { LinkInfo } from '../../../src/port/interface/link.ts'
import type { RawSocketOptions } from '../../../src/port/options.ts'
import type { InterfaceVerdict, ControlPort } from '../../../src/port/control-port.ts'
import { PortEntry } from '../../../src/switch/port-entry.ts'
import { InterfaceFollower } from '../../../src/switch/reopening.ts'
import { LostControlPort } from '../../../src/port/raw-socket/lost.ts'

const OPTIONS: RawSocketOptions = { type: 'raw-socket', id: 'p', ifname: 'eth1' }
const LINK: LinkInfo = {
  ifindex: 7,
  ifname: 'eth1',
  hardware: 1,
  master: 0,
  isUp: true,
  hasCarrier: true,
  mtu: 1500,
  kind: 'veth',
  tunQueues: 0,
  rxDropped: 0,
  txDropped: 0,
}

let steps: string[]
let verdict: InterfaceVerdict
/** What opening and handing over come to. */
let opening: (name: string) => ControlPort | Error
let replacing: Error | undefined
let isThere: boolean
let isClosed: boolean
let last: Promise<unknown>
let follower: InterfaceFollower
let entry: PortEntry

function fake(name: string): ControlPort {
  return {
    acceptsPostponedPeer: true,
    queues: 1,
    vnetHdrLength: 10,
    txOffloads: 1,
    rxOffloads: 1,
    description: { kind: 'postponed' },
    facts: () => ({ ifname: name }),
    setCarrier: () => undefined,
    placeholder: (options, reason) =>
      new LostControlPort(options as RawSocketOptions, fake(name), reason),
    lookUp: () => (isThere ? LINK : null),
    judge: () => verdict,
    adapt: (link) => ({ do: 'interface-mtu', mtu: link!.mtu }),
    close: () => {
      steps.push(`close ${name}`)
      return Promise.resolve()
    },
  }
}

const nameOf = ({ open }: PortEntry): string =>
  open instanceof LostControlPort ? 'lost' : open.facts().ifname!

beforeEach(() => {
  vi.useFakeTimers()
  steps = []
  verdict = 'fine'
  opening = fake
  replacing = undefined
  isThere = true
  isClosed = false
  last = Promise.resolve()
  let count = 1
  follower = new InterfaceFollower({
    log: (message) => void steps.push(`log ${message}`),
    change: (step) => {
      const result = last.then(() => {
        if (isClosed) throw new StateError('SWITCH_CLOSED', 'the switch is closed')
        return step()
      })
      last = result.catch(() => undefined)
      return result
    },
    ports: { has: (one) => one === entry },
    states: {
      tell: (one) => {
        steps.push(`tell ${one.isUp}`)
        return Promise.resolve()
      },
      show: (one) => void steps.push(`show ${one.failure === undefined ? 'open' : 'failed'}`),
    },
    call: (_entry, call) => Promise.resolve(void steps.push(JSON.stringify(call))),
    open: () => {
      const opened = opening(`open${++count}`)
      steps.push(opened instanceof Error ? 'no open' : 'open')
      return opened instanceof Error ? Promise.reject(opened) : Promise.resolve(opened)
    },
    replace: (one) => {
      steps.push(`replace ${nameOf(one)}`)
      return replacing === undefined ? Promise.resolve() : Promise.reject(replacing)
    },
    watch: (one) => void steps.push(`watch ${nameOf(one)}`),
  })
  entry = new PortEntry(0, OPTIONS, fake('open1'), undefined)
})

afterEach(() => {
  follower.close()
  vi.useRealTimers()
})

/** Lets what was begun come to its end. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve()
  await last
}

async function changed(): Promise<string[]> {
  steps.length = 0
  follower.changed(entry)
  await settle()
  return steps
}

async function after(ms: number): Promise<string[]> {
  steps.length = 0
  await vi.advanceTimersByTimeAsync(ms)
  await settle()
  return steps
}

const GONE = 'No such device: the interface open1 was deleted or moved away'
const HOPE = '(the port goes on when there is an interface eth1)'

test('a port whose interface is as it was is told to go on', async () => {
  expect(await changed()).toEqual(['tell true'])
  expect(await after(60_000)).toEqual([])
})

test('a port that can go on as soon as it is told is told', async () => {
  verdict = 'adapt'
  expect(await changed()).toEqual(['{"do":"interface-mtu","mtu":1500}', 'tell true'])
})

test('a port whose interface is gone lets go of it, and says so once', async () => {
  isThere = false
  verdict = 'gone'
  expect(await changed()).toEqual([
    'replace lost',
    'close open1',
    'watch lost',
    `log raw-socket p: failed error=${GONE} ${HOPE}`,
    'show failed',
  ])
  expect(entry.failure).toBe(`${GONE} ${HOPE}`)
  expect(await changed()).toEqual([])
})

test('one that is there again at once is opened anew without having failed', async () => {
  verdict = 'anew'
  const judge = vi.spyOn(LostControlPort.prototype, 'judge').mockReturnValue('anew')
  expect(await changed()).toEqual([
    'replace lost',
    'close open1',
    'watch lost',
    'open',
    'replace open2',
    'watch open2',
    'log raw-socket p: open again ifname=open2',
    'show open',
  ])
  expect(entry.failure).toBeUndefined()
  judge.mockRestore()
})

/** Lost, with an interface that is there from then on or not. */
async function lose(): Promise<void> {
  verdict = 'gone'
  await changed()
  expect(entry.open).toBeInstanceOf(LostControlPort)
  vi.spyOn(entry.open as LostControlPort, 'lookUp').mockImplementation(() =>
    isThere ? LINK : null,
  )
}

test('a port that is lost comes back when it is told, or after a while', async () => {
  for (const isTold of [true, false]) {
    await lose()
    isThere = false
    expect(await after(10_000)).toEqual([])
    isThere = true
    const done = isTold ? await changed() : await after(10_000)
    expect(done[0]).toBe('open')
    expect(done.at(-1)).toBe('show open')
    expect(entry.open).not.toBeInstanceOf(LostControlPort)
    verdict = 'fine'
    expect(await after(60_000)).toEqual([])
  }
})

test('one that cannot be opened is tried again, and what is in the way is said once', async () => {
  await lose()
  opening = () => new StateError('X', 'no ring')
  expect(await changed()).toEqual([
    'no open',
    `log raw-socket p: failed error=no ring [X] ${HOPE}`,
    'show failed',
  ])
  expect(entry.failure).toBe(`no ring [X] ${HOPE}`)
  vi.spyOn(entry.open as LostControlPort, 'lookUp').mockReturnValue(LINK)
  const retried = await after(10_000)
  expect(retried.length).toBeGreaterThan(1)
  expect(new Set(retried)).toEqual(new Set(['no open']))
  opening = fake
  expect((await after(10_000)).at(-1)).toBe('show open')
  expect(entry.failure).toBeUndefined()
})

test('what the engine does not take is closed, and the port stays as it was', async () => {
  verdict = 'gone'
  replacing = new Error('no engine')
  expect(await changed()).toEqual(['replace lost', 'log no engine'])
  expect([nameOf(entry), entry.failure]).toEqual(['open1', undefined])
  replacing = undefined
  await lose()
  replacing = new Error('no engine')
  expect(await changed()).toEqual(['open', 'replace open2', 'close open2', 'log no engine'])
  expect(entry.open).toBeInstanceOf(LostControlPort)
  expect(entry.failure).toBe(`${GONE} ${HOPE}`)
  replacing = undefined
  expect((await after(10_000)).at(-1)).toBe('show open')
})

test('however often it is told, it is looked at once, unless it is told meanwhile', async () => {
  let looks = 0
  entry.open.judge = () => {
    if (++looks === 1) follower.changed(entry)
    return 'fine'
  }
  for (let n = 0; n < 100; n++) follower.changed(entry)
  await settle()
  await settle()
  expect(looks).toBe(2)
})

test('a port that is gone is left alone, and so is the switch when it is closed', async () => {
  await lose()
  const other = entry
  entry = new PortEntry(0, OPTIONS, fake('other'), undefined)
  follower.changed(other)
  await settle()
  expect(await after(60_000)).toEqual([])
  verdict = 'gone'
  await changed()
  isClosed = true
  expect(await changed()).toEqual([])
  follower.close()
  expect(await after(60_000)).toEqual([])
  expect(vi.getTimerCount()).toBe(0)
})

test('a port that was given its socket waits for nothing', async () => {
  const { ifname: _, ...rest } = OPTIONS
  entry = new PortEntry(0, { ...rest, fd: 's' }, fake('open1'), undefined)
  verdict = 'gone'
  await changed()
  expect(entry.failure).toBe(`${GONE} (give the port another socket)`)
  expect(vi.getTimerCount()).toBe(0)
})
