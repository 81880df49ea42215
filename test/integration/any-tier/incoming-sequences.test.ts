/**
 * Any sequence of adding, removing, wiring, signalling, failing and repeating, on real TAPs, against
 * a model of a few lines: order and states (P2, R3, R5, R7, D1, D2, D5, D10), and descriptors (C1):
 * none leaked, none closed twice.
 */
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, PortInfo, Switch } from '../../../src/index.ts'
import type { shim as Shim } from '../../../src/native/shim.ts'
import { IO, Lab } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { deleteLink, makeTap, tunDescriptors, tunState } from '../../support/tun.ts'

// A traced shim is an object of our own, whose calls can be replaced.
process.env['FRAMEPUMP_TRACE'] = '/dev/null'
// The modules one by one: the shim's functions are those that the switch calls.
const build: string = new URL('../../../build/', import.meta.url).href
const { createSwitch } = (await import(`${build}index.js`)) as {
  createSwitch: typeof CreateSwitch
}
const { shim } = (await import(`${build}native/shim.js`)) as { shim: typeof Shim }
delete process.env['FRAMEPUMP_TRACE']

const EBADF = 9
/** Queues of the TAPs t0, t1, ... of the ports p0, p1, ... */
const QUEUES = [1, 3, 2, 4]
const MEMORIES = ['m0', 'm1']

/** Closes of what was not open. */
const badCloses: number[] = []
const untouched = { ...shim }
shim.close = (fd) => {
  const result = untouched.close(fd)
  if (result === -EBADF) badCloses.push(fd)
  return result
}

type Step =
  | { readonly do: 'add' | 'remove'; readonly id: string }
  | { readonly do: 'link' | 'unlink'; readonly a: string; readonly b: string }
  | { readonly do: 'set-link'; readonly id: string; readonly up: boolean }
  | { readonly do: 'break' | 'mend'; readonly k: number }
  | { readonly do: 'signal' | 'cont' }

const taps = QUEUES.map((_, k) => `p${k}`)
const id = fc.constantFrom(...taps, ...MEMORIES)
const k = fc.constantFrom(...QUEUES.keys())
const breaks = fc.record({ do: fc.constantFrom('break' as const, 'mend' as const), k })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant('add' as const), id }) },
  fc.record({ do: fc.constant('remove' as const), id }),
  fc.record({ do: fc.constantFrom('link' as const, 'unlink' as const), a: id, b: id }),
  fc.record({ do: fc.constant('set-link' as const), id, up: fc.boolean() }),
  { weight: 3, arbitrary: breaks },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('signal' as const, 'cont' as const) }) },
)

interface ModelPort {
  isPostponed: boolean
  up: boolean
  peer: string | undefined
  error: string | undefined
}

/** What the switch ought to be. Each step returns the text of its error, '' for none. */
class Model {
  readonly ports = new Map<string, ModelPort>()
  readonly devices = new Set<number>()
  readonly #netns: string
  isSignalled = false
  isRunning = false

  constructor(netns: string) {
    this.#netns = netns
  }

  step(one: Step): string {
    switch (one.do) {
      case 'add':
        return this.#add(one.id)
      case 'remove': {
        const port = this.ports.get(one.id)
        if (port?.peer !== undefined) this.ports.get(port.peer)!.peer = undefined
        return this.ports.delete(one.id) ? '' : `Device '${one.id}' not found`
      }
      case 'set-link': {
        const port = this.ports.get(one.id)
        if (port !== undefined) port.up = one.up
        return port === undefined ? `Device '${one.id}' not found` : ''
      }
      case 'link':
        return this.#link(one.a, one.b)
      case 'unlink':
        return this.#unlink(one.a, one.b)
      case 'signal':
        if (this.isSignalled) return 'The incoming migration has already been started'
        return this.#openAll(() => (this.isSignalled = true))
      case 'cont':
        if (this.isRunning) return ''
        if (!this.isSignalled) return 'ports are still postponed until the pre-incoming point'
        return this.#openAll(() => (this.isRunning = true))
      case 'break':
        this.devices.delete(one.k)
        return ''
      case 'mend':
        this.devices.add(one.k)
        return ''
    }
  }

  #add(name: string): string {
    if (this.ports.has(name)) return `Duplicate ID '${name}'`
    const isPostponed = name.startsWith('p') && !this.isRunning
    this.ports.set(name, { isPostponed, up: true, peer: undefined, error: undefined })
    // A name that is free is made.
    if (name.startsWith('p') && !isPostponed) this.devices.add(Number(name.slice(1)))
    return ''
  }

  #link(a: string, b: string): string {
    const missing = [a, b].find((name) => !this.ports.has(name))
    if (missing !== undefined) return `Device '${missing}' not found`
    if (a === b) return `cannot wire "${a}" to itself`
    for (const name of [a, b]) {
      const { peer } = this.ports.get(name)!
      if (peer !== undefined) return `port "${name}" is already wired to "${peer}"`
    }
    for (const [one, other] of [
      [a, b],
      [b, a],
    ]) {
      if (!this.ports.get(one)!.isPostponed || other.startsWith('p')) continue
      const error = this.#open(one)
      if (error !== '') return error
    }
    this.ports.get(a)!.peer = b
    this.ports.get(b)!.peer = a
    return ''
  }

  #unlink(a: string, b: string): string {
    const missing = [a, b].find((name) => !this.ports.has(name))
    if (missing !== undefined) return `Device '${missing}' not found`
    if (this.ports.get(a)!.peer !== b) return `"${a}" and "${b}" are not wired to each other`
    this.ports.get(a)!.peer = undefined
    this.ports.get(b)!.peer = undefined
    return ''
  }

  #open(name: string): string {
    const port = this.ports.get(name)!
    const hasDevice = this.devices.has(Number(name.slice(1)))
    const what = `no interface "t${name.slice(1)}" in netns ${this.#netns}`
    port.error = hasDevice ? undefined : `tap ${name} queue 0: ${what}`
    if (hasDevice) port.isPostponed = false
    return port.error ?? ''
  }

  #openAll(done: () => void): string {
    const waiting = this.waiting()
    for (const name of waiting) {
      const error = this.#open(name)
      if (error === '') continue
      for (const again of waiting) this.ports.get(again)!.isPostponed = true
      return error
    }
    done()
    return ''
  }

  waiting(): string[] {
    return [...this.ports].filter(([, port]) => port.isPostponed).map(([name]) => name)
  }

  /** Changes of state that a signal or `cont` makes public, in their order. */
  changes(failing: string): string[] {
    const waiting = this.waiting()
    const at = waiting.findIndex((name) => failing.startsWith(`tap ${name} `))
    const opened = at < 0 ? waiting : waiting.slice(0, at)
    const up = opened.map((name) => `${name} ${this.ports.get(name)!.up ? 'open' : 'down'}`)
    return at < 0 ? up : [...up, ...opened.toReversed().map((name) => `${name} postponed`)]
  }

  show(): unknown[] {
    return [...this.ports].map(([name, { isPostponed, up, peer, error }]) => {
      return [name, isPostponed ? 'postponed' : up ? 'open' : 'down', peer, error]
    })
  }

  queuesOpen(): number {
    return QUEUES.filter((_, at) => this.ports.get(`p${at}`)?.isPostponed === false).reduce(
      (sum, queues) => sum + queues,
      0,
    )
  }
}

/** Descriptors of a file of ours in every free number: whoever closes a number twice hits one. */
class Sentinels implements Disposable {
  readonly #fds: number[] = []
  readonly #inode: number
  readonly #path: string

  constructor(path: string) {
    this.#path = path
    closeSync(openSync(path, 'w'))
    const fd = openSync(path, 'r')
    this.#inode = fstatSync(fd).ino
    this.#fds.push(fd)
  }

  fill(): void {
    const used = Math.max(...readdirSync('/proc/self/fd').map(Number))
    for (;;) {
      const fd = openSync(this.#path, 'r')
      if (fd > used) {
        closeSync(fd)
        return
      }
      this.#fds.push(fd)
    }
  }

  check(): void {
    for (const fd of this.#fds) expect(fstatSync(fd).ino).toBe(this.#inode)
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd)
  }
}

/** Carries a step out; the text of its error, '' for none. */
async function perform(sw: Switch, netns: string, one: Step): Promise<string> {
  const hasDevice = (at: number): boolean => tunState(netns, `t${at}`) !== null
  const action = async (): Promise<unknown> => {
    switch (one.do) {
      case 'add': {
        if (one.id.startsWith('m')) return sw.addPort({ type: 'memory', id: one.id })
        const at = Number(one.id.slice(1))
        const scripts = { script: 'no', downscript: 'no' } as const
        const tap = { type: 'tap', id: one.id, ifname: `t${at}`, netns, ...scripts } as const
        return sw.addPort({ ...tap, queues: QUEUES[at], persist: true })
      }
      case 'remove':
        return sw.removePort(one.id)
      case 'set-link':
        return sw.setLink(one.id, one.up)
      case 'link':
        return sw.addLink(one.a, one.b)
      case 'unlink':
        return sw.removeLink(one.a, one.b)
      case 'signal':
        return sw.migrateIncoming()
      case 'cont':
        return sw.resume()
      case 'break':
        if (hasDevice(one.k)) deleteLink(netns, `t${one.k}`)
        return
      case 'mend':
        if (!hasDevice(one.k)) makeTap(netns, QUEUES[one.k], `t${one.k}`)
        return
    }
  }
  return action().then(
    () => '',
    (error: Error) => error.message,
  )
}

/** The file behind each of our descriptors. */
function descriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, '')]
      } catch {
        return []
      }
    })
    .sort()
}

async function play(lab: Lab, netns: string, steps: readonly Step[]): Promise<void> {
  const model = new Model(netns)
  for (const at of QUEUES.keys()) {
    if (tunState(netns, `t${at}`) === null) makeTap(netns, QUEUES[at], `t${at}`)
    model.devices.add(at)
  }
  const before = descriptors()
  const sw = createSwitch({ io: IO as 'auto', incoming: true })
  try {
    using sentinels = new Sentinels(`${lab.directory}/sentinel`)
    let changes: string[] = []
    sw.events.on('port-changed', (port: PortInfo) => changes.push(`${port.id} ${port.state}`))
    for (const one of steps) {
      // A device under an open port is not ours to delete here.
      if (one.do === 'break' && model.ports.get(`p${one.k}`)?.isPostponed === false) continue
      sentinels.fill()
      changes = []
      const waiting = model.changes('')
      const error = await perform(sw, netns, one)
      sentinels.check()
      expect(badCloses).toEqual([])
      const isSignal = one.do === 'signal' || (one.do === 'cont' && model.isSignalled)
      const wasOver = one.do === 'signal' ? model.isSignalled : model.isRunning
      const expected = model.changes(error)
      expect(error).toBe(model.step(one))
      if (isSignal && !wasOver) expect(changes).toEqual(error === '' ? waiting : expected)
      expect(sw.ports().map((port) => [port.id, port.state, port.peer, port.error])).toEqual(
        model.show(),
      )
      expect(tunDescriptors(process.pid)).toHaveLength(model.queuesOpen())
      expect(sw.runState).toBe(model.isRunning ? 'running' : 'inmigrate')
    }
  } finally {
    await sw.close()
  }
  await until('every descriptor is closed', () => descriptors().join() === before.join())
  expect(badCloses).toEqual([])
  for (const at of QUEUES.keys()) expect(tunState(netns, `t${at}`)?.held ?? 0).toBe(0)
}

test('P2, R3, R5, R7, D1, D2, D5, D10, C1: any sequence keeps order, states and descriptors', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  await play(lab, netns, [])
  // Most of it needs ports that wait: some are there at the beginning.
  const added = fc.shuffledSubarray([...taps, ...MEMORIES], { minLength: 4 })
  const first = added.map((ids) => ids.map((name) => ({ do: 'add', id: name }) as const))
  const steps = fc.tuple(first, fc.array(step, { minLength: 5, maxLength: 25 }))
  await fc.assert(
    fc.asyncProperty(steps, (parts) => play(lab, netns, parts.flat())),
    { numRuns: 30 },
  )
}, 240_000)
