/**
 * The switch beside an engine that only notes what it is asked for: what is asked, in which order, and what
 * is left when that fails.
 */
import { beforeEach, expect, test, vi } from 'vitest'
import type { EngineEvents } from '../../../src/engine/client.ts'
import type { EngineRequest } from '../../../src/engine/messages.ts'
import type { Switch } from '../../../src/index.ts'
import type { SwitchingOptions } from '../../../src/port/switching-options.ts'

const asked: string[] = []
/** Requests of this kind fail. */
let failing: string | undefined
let events: EngineEvents

vi.mock('../../../src/engine/client.ts', () => ({
  EngineClient: class {
    readonly counters = new Float64Array(64 * 1024)
    readonly engineCounters = new Float64Array(16)
    readonly signals = { context: 0n }

    constructor(_settings: unknown, told: EngineEvents) {
      events = told
    }

    wake = (): void => undefined
    together = <T>(make: () => T): T => make()

    request(request: EngineRequest): Promise<unknown> {
      const { port, a, b } = request as { port?: number; a?: number; b?: number }
      const where = port ?? (a === undefined ? '' : `${a}-${b}`)
      const isUp = 'isUp' in request ? (request.isUp ? ' up' : ' down') : ''
      asked.push(`${request.op} ${where}${isUp}`.trim())
      if (request.op === failing) return Promise.reject(new Error(`no ${request.op}`))
      return Promise.resolve(request.op === 'release' ? [] : undefined)
    }

    async *macTable(): AsyncGenerator {
      const rows = Int32Array.of(0x02, 0x0100, 0, 5, 0x02, 0x0200, 9, 5)
      yield { rows, next: -1, changes: 2 }
    }

    switchCounters(): object {
      return { bursts: 1 }
    }

    close(): Promise<void> {
      asked.push('close')
      return Promise.resolve()
    }
  },
}))

const { createSwitch } = await import('../../../src/switch/switch.ts')

let sw: Switch

beforeEach(() => {
  asked.length = 0
  failing = undefined
  sw = createSwitch({ io: 'read-write' })
})

const add = (id: string): Promise<unknown> => sw.addPort({ type: 'memory', id })
const ids = (): string[] => sw.ports().map(({ id }) => id)
const isLike = (more: object): Error => expect.objectContaining(more) as Error

test('ports have the lowest free numbers, and a removed one leaves its own', async () => {
  for (const id of ['a', 'b', 'c']) await add(id)
  await sw.removePort('b')
  await add('d')
  expect(asked).toEqual(['add-port 0', 'add-port 1', 'add-port 2', 'remove-port 1', 'add-port 1'])
  expect(ids()).toEqual(['a', 'c', 'd'])
  await sw.close()
})

test('a port that is there already, or is not, is refused before the engine hears of it', async () => {
  await add('a')
  await expect(add('a')).rejects.toMatchObject({ code: 'DUPLICATE_ID' })
  await expect(sw.removePort('b')).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  await expect(sw.setLink('b', false)).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  await expect(sw.addLink('a', 'b')).rejects.toMatchObject({ code: 'PORT_NOT_FOUND' })
  expect(() => sw.port('b')).toThrow(isLike({ code: 'PORT_NOT_FOUND' }))
  expect(asked).toEqual(['add-port 0'])
  await sw.close()
})

test('a port that the engine cannot have is not there, and its number is free', async () => {
  failing = 'add-port'
  await expect(add('a')).rejects.toThrow('no add-port')
  expect(asked).toEqual(['add-port 0', 'remove-port 0'])
  expect(ids()).toEqual([])
  failing = undefined
  await add('a')
  expect(asked.at(-1)).toBe('add-port 0')
  await sw.close()
})

test('a port with a peer is held until it is wired to it', async () => {
  await add('a')
  await sw.addPort({ type: 'memory', id: 'b' }, new Map(), { peer: 'a' })
  expect(asked).toEqual(['add-port 0', 'add-port 1', 'wire 1-0', 'release'])
  expect(sw.links()).toEqual([['a', 'b']])
  await expect(
    sw.addPort({ type: 'memory', id: 'c' }, new Map(), { peer: 'a' }),
  ).rejects.toMatchObject({ code: 'BAD_LINK' })
  await sw.removeLink('a', 'b')
  expect(asked.at(-1)).toBe('unwire 0-1')
  expect(sw.links()).toEqual([])
  await sw.close()
})

test('V9: a port with VLAN or policy options cannot be wired, nor get them on a link', async () => {
  await sw.addPort({ type: 'memory', id: 'a', tag: 10 })
  await add('b')
  const refusal = {
    code: 'BAD_LINK',
    message: 'port "a" has tag=, which ports on a link cannot have',
  }
  await expect(sw.addLink('b', 'a')).rejects.toMatchObject(refusal)
  const peer = { peer: 'a' }
  await expect(sw.addPort({ type: 'memory', id: 'c' }, new Map(), peer)).rejects.toMatchObject(
    refusal,
  )
  const isolated = { type: 'memory', id: 'c', isolated: true } as const
  await expect(sw.addPort(isolated, new Map(), { peer: 'b' })).rejects.toMatchObject({
    message: 'port "c" has isolated=, which ports on a link cannot have',
  })
  await sw.changePort({ type: 'memory', id: 'a' })
  await sw.addLink('a', 'b')
  await expect(sw.changePort({ type: 'memory', id: 'a', tag: 10 })).rejects.toMatchObject(refusal)
  expect(sw.port('a').switching).toEqual({})
  await sw.close()
})

test('a port whose options contradict one another is not there', async () => {
  const wrong = { type: 'memory', id: 'a', 'vlan-mode': 'access' } as const
  await expect(sw.addPort(wrong)).rejects.toMatchObject({ code: 'BAD_OPTION' })
  expect([ids(), asked]).toEqual([[], []])
  await sw.close()
})

test('VLANs are listed with their ports', async () => {
  await sw.addPort({ type: 'memory', id: 'a', tag: 10 })
  await sw.addPort({ type: 'memory', id: 'b', trunks: ['10-11'] })
  await sw.addPort({ type: 'memory', id: 'c', 'vlan-mode': 'native-tagged', tag: 11, trunks: [0] })
  await add('d')
  const q = { type: 'memory', id: 'q', 'vlan-mode': 'dot1q-tunnel', tag: 10 } as const
  await sw.addPort(q)
  expect(sw.vlans()).toEqual([
    { vlan: 0, tagged: [], untagged: ['d'] },
    { vlan: 10, tagged: ['b', 'd'], untagged: ['a', 'q'] },
    { vlan: 11, tagged: ['b', 'c', 'd'], untagged: [] },
  ])
  expect(sw.port('q').switching).toEqual({ 'vlan-mode': 'dot1q-tunnel', tag: 10 })
  await sw.close()
})

test('F2: static entries are at one port, and go with it', async () => {
  await sw.addPort({ type: 'memory', id: 'a' })
  await add('b')
  const [one, other] = [
    { mac: '02-00-00-00-00-0A', vlan: 10, port: 'a' },
    { mac: '02:00:00:00:00:0b', port: 'b' },
  ]
  await sw.fdb.add([one, other])
  await sw.fdb.add([one])
  const listed = [
    { mac: '02:00:00:00:00:0a', vlan: 10, port: 'a' },
    { mac: '02:00:00:00:00:0b', vlan: 0, port: 'b' },
  ]
  expect(sw.fdb.list()).toEqual(listed)
  expect(asked.slice(2)).toEqual(['add-macs 0', 'add-macs 1'])
  await expect(sw.fdb.add([{ ...one, port: 'b' }])).rejects.toMatchObject({
    code: 'FDB_ENTRY',
    message: '02:00:00:00:00:0a in VLAN 10 is static at port "a"',
  })
  await expect(sw.fdb.remove([{ mac: one.mac }])).rejects.toMatchObject({ code: 'FDB_ENTRY' })
  for (const mac of ['x', '03:00:00:00:00:01']) {
    await expect(sw.fdb.add([{ mac, port: 'a' }])).rejects.toMatchObject({ code: 'BAD_OPTION' })
  }
  await expect(sw.fdb.add([{ ...one, vlan: 4096 }])).rejects.toMatchObject({ code: 'BAD_OPTION' })
  // When one of them cannot be there none is.
  failing = 'add-macs'
  await expect(sw.fdb.add([{ ...other, vlan: 5 }])).rejects.toThrow('no add-macs')
  failing = undefined
  expect(sw.fdb.list()).toEqual(listed)
  asked.length = 0
  await sw.fdb.flush({ port: 'b' })
  expect([asked, sw.fdb.list()]).toEqual([['flush-macs 1'], listed])
  // -1 means all to the engine.
  for (const vlan of [-1, 4096, 1.5]) {
    await expect(sw.fdb.flush({ vlan })).rejects.toMatchObject({ code: 'BAD_OPTION' })
    await expect(sw.groups.flush({ vlan })).rejects.toMatchObject({ code: 'BAD_OPTION' })
  }
  await sw.fdb.flush({ vlan: 10, all: true })
  expect([asked.slice(1), sw.fdb.list()]).toEqual([['flush-macs -1', 'remove-macs 0'], [listed[1]]])
  await sw.fdb.remove([other])
  await sw.fdb.add([other])
  await sw.removePort('b')
  expect(sw.fdb.list()).toEqual([])
  await sw.close()
})

test('P3: addresses of a locked port are its own, in every VLAN of it', async () => {
  const macs = ['02:00:00:00:00:01']
  await sw.addPort({ type: 'memory', id: 'a', locked: true, macs, tag: 10 })
  const same = { type: 'memory', id: 'b', locked: true, macs, trunks: ['9-11'] } as const
  await expect(sw.addPort(same)).rejects.toMatchObject({ code: 'FDB_ENTRY' })
  await expect(sw.fdb.add([{ mac: macs[0], vlan: 10, port: 'b' }])).rejects.toThrow()
  await sw.addPort({ ...same, trunks: [9, 11] })
  asked.length = 0
  // New ones are there before the port heeds them, and old ones as long as it does.
  await sw.changePort({ ...same, trunks: [11, 12] })
  expect(asked).toEqual([
    'set-mtu 1',
    'add-macs 1',
    'set-policy 1',
    'remove-macs 1',
    'flush-macs 1',
  ])
  expect(sw.fdb.list()).toEqual([])
  await sw.close()
})

test('F6: what was learnt at a port stays when options change that are about something else', async () => {
  const port = { type: 'memory', id: 'a', flood: false, guard: ['arp'], ips: ['10.0.0.1'] } as const
  await sw.addPort(port)
  const told = async (more: SwitchingOptions): Promise<string[]> => {
    asked.length = 0
    await sw.changePort({ ...port, ...more })
    return asked.slice()
  }
  const others = ['set-mtu 0', 'set-policy 0']
  expect(await told({ storm: { broadcast: 5 }, isolated: true })).toEqual(others)
  expect(await told({ hairpin: true, ips: ['10.0.0.2'], 'mcast-flood': false })).toEqual(others)
  for (const more of [{ tag: 5 }, { trunks: [5] }, { 'mac-limit': 5 }, { locked: true }, {}]) {
    expect(await told(more)).toEqual([...others, 'flush-macs 0'])
  }
  await sw.close()
})

test('P5: a storm is a line when it begins and one when it ends', async () => {
  const lines: string[] = []
  const told = createSwitch({ io: 'read-write', log: (line) => void lines.push(line) })
  await told.addPort({ type: 'memory', id: 'a', storm: { broadcast: 10 } })
  events.storms([{ port: 0, kind: 0, isStorm: true, dropped: 7 }])
  events.storms([
    { port: 0, kind: 2, isStorm: false, dropped: 9 },
    { port: 5, kind: 2, isStorm: false, dropped: 9 },
  ])
  expect(lines).toEqual([
    'memory a: broadcast storm began dropped=7',
    'memory a: unknown-unicast storm is over dropped=9',
  ])
  await told.close()
  await sw.close()
})

test('a wire that fails leaves both ports on the switch', async () => {
  for (const id of ['a', 'b']) await add(id)
  failing = 'wire'
  await expect(sw.addLink('a', 'b')).rejects.toThrow('no wire')
  expect(asked.slice(2)).toEqual(['wire 0-1', 'unwire 0-1'])
  expect(sw.links()).toEqual([])
  await sw.close()
})

test('a link that cannot be shut stays as it was', async () => {
  await add('a')
  await sw.setLink('a', false)
  expect(sw.port('a')).toMatchObject({ link: false, state: 'down' })
  failing = 'set-link'
  await expect(sw.setLink('a', true)).rejects.toThrow('no set-link')
  expect(sw.port('a')).toMatchObject({ link: false, state: 'down' })
  expect(asked.slice(1)).toEqual(['set-link 0 down', 'set-link 0 up', 'set-link 0 down'])
  await sw.close()
})

test('changes are made one after the other, whatever becomes of those before', async () => {
  failing = 'wire'
  const all = await Promise.allSettled([
    add('a'),
    add('b'),
    sw.addLink('a', 'b'),
    sw.removePort('a'),
    add('a'),
  ])
  expect(all.map(({ status }) => status === 'fulfilled')).toEqual([true, true, false, true, true])
  expect(ids()).toEqual(['b', 'a'])
  await sw.close()
})

test('paused and resumed, each once', async () => {
  await sw.pause()
  await sw.pause()
  expect(sw.runState).toBe('paused')
  failing = 'resume'
  await expect(sw.resume()).rejects.toThrow('no resume')
  expect(sw.runState).toBe('paused')
  failing = undefined
  await sw.resume()
  await sw.resume()
  expect(sw.runState).toBe('running')
  expect(asked).toEqual(['pause', 'resume', 'pause', 'resume'])
  await sw.close()
})

test('addresses of ports that have just gone are left out', async () => {
  await add('a')
  expect(await sw.macTable()).toEqual([{ mac: '02:00:00:00:00:01', vlan: 0, port: 'a', ageS: 5 }])
  await sw.close()
})

test('a failed port says why, once, and is let go of like others', async () => {
  await add('a')
  const told: string[] = []
  sw.events.on('port-changed', ({ state, error }) => told.push(`${state} ${error}`))
  events.queueBroken(0, 1, 'a descriptor is out of range')
  events.queueBroken(0, 1, 'a descriptor is out of range')
  expect(told).toEqual(['failed queue 1 is broken: a descriptor is out of range'])
  await sw.removePort('a')
  expect(asked.filter((one) => one.startsWith('remove'))).toEqual(['remove-port 0'])
  await sw.close()
})

test('an engine that fails closes the switch, and says so', async () => {
  await add('a')
  const told: Error[] = []
  sw.events.on('engine-failed', (error) => told.push(error))
  events.failed(new Error('gone'))
  expect(sw.runState).toBe('shutdown')
  await sw.close()
  expect(told.map(({ message }) => message)).toEqual(['gone'])
  expect(asked.slice(1)).toEqual(['remove-port 0', 'close'])
  await expect(add('b')).rejects.toMatchObject({ code: 'SWITCH_CLOSED' })
})

test('closed twice, it closes once', async () => {
  await add('a')
  await Promise.all([sw.close(), sw.close()])
  expect(asked).toEqual(['add-port 0', 'remove-port 0', 'close'])
})
