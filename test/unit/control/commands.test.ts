/** What each command does to the switch and the daemon, and what it answers. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { ControlTarget } from '../../../src/control/command.ts'
import { COMMANDS, makeCommands } from '../../../src/control/commands.ts'
import { EVENTS } from '../../../src/control/events.ts'
import { GivenFds } from '../../../src/control/given-fds.ts'
import type { Session } from '../../../src/control/session.ts'
import { Pages } from '../../../src/control/session.ts'
import type { MigrationInfo } from '../../../src/handover/progress.ts'
import type { CaptureSummary, PortInfo, Switch } from '../../../src/switch/api.ts'
import { shim } from '../../../src/native/shim.ts'

function port(id: string, more: Partial<PortInfo> = {}): PortInfo {
  const counters = { tx_checksummed: 1, tx_segmented: 2, tx_coalesced: 3, tx_drop_offload: 4 }
  return {
    id,
    type: 'tap',
    state: 'open',
    queues: 1,
    offloads: { rx: ['csum', 'tso4'], tx: ['csum', 'tso6'] },
    gro: false,
    vnetHdrLength: 12,
    link: true,
    switching: {},
    counters: counters as unknown as PortInfo['counters'],
    ...more,
  }
}

type Act = (...args: readonly unknown[]) => Promise<unknown>

/** A capture that ends when the test says so. */
function fakeCapture(id: number) {
  let end!: (summary: CaptureSummary) => void
  const done = new Promise<CaptureSummary>((resolve) => (end = resolve))
  const summary = { frames: 1, dropped: 0, bytes: 99 }
  const stop = vi.fn<() => Promise<CaptureSummary>>(() => {
    end(summary)
    return done
  })
  return { id, done, stop, summary }
}

let ports: PortInfo[]
const sw = {
  runState: 'running',
  io: 'read-write',
  pause: vi.fn<Act>(async () => undefined),
  removePort: vi.fn<Act>(async () => undefined),
  setLink: vi.fn<Act>(async () => undefined),
  removeLink: vi.fn<Act>(async () => undefined),
  startCapture: vi.fn<(options: unknown) => Promise<ReturnType<typeof fakeCapture>>>(),
  currentCounters: vi.fn<Act>(async () => ({ bursts: 7 })),
  kernelCounters: (id: string) => (id === 'a' ? { rx_kernel_dropped: 5 } : undefined),
  capture: vi.fn<(id: number) => ReturnType<typeof fakeCapture>>(),
  captures: () => [
    { id: 3, to: '/x', format: 'pcap', direction: 'in', snapLength: 64, frames: 2, dropped: 1 },
  ],
  fdb: {
    add: vi.fn<Act>(async () => undefined),
    remove: vi.fn<Act>(async () => undefined),
    flush: vi.fn<Act>(async () => undefined),
  },
  links: () => [['a', 'b']],
  addMirror: vi.fn<Act>(async () => undefined),
  removeMirror: vi.fn<Act>(async () => undefined),
  mirrors: () => {
    const options = { name: 'm', selectAll: true, outputPort: 'b', snapLength: 64 }
    return [{ options, missing: [], frames: 1, bytes: 60 }]
  },
  vlans: () => [{ vlan: 10, tagged: ['a'], untagged: [] }],
  ports: () => ports,
  port: (id: string) => ports.find((one) => one.id === id)!,
  groups: {
    flush: vi.fn<Switch['groups']['flush']>(async () => undefined),
    async *pages() {
      yield [{ vlan: 0, family: 'ipv4', port: 'a', expiresS: 200, querier: '10.0.0.1' }]
      const member = { vlan: 10, innerVlan: 5, family: 'ipv6', group: 'ff15::1', port: 'b' }
      yield [{ ...member, expiresS: 9 }]
      yield [{ vlan: 20, family: 'ipv4', port: 'b', multicastRouter: 'always' }]
    },
  },
  async *macTablePages() {
    yield [{ mac: '02:00:00:00:00:01', vlan: 10, port: 'a', ageS: 3 }]
  },
}
const target = {
  switch: sw as unknown as Switch,
  version: { major: 1, minor: 2, micro: 3 },
  reload: vi.fn<Act>(async () => ({ actions: [], 'needs-restart': [] })),
  resume: vi.fn<() => Promise<void>>(async () => undefined),
  quit: vi.fn<() => void>(),
  addPort: vi.fn<ControlTarget['addPort']>(async () => undefined),
  addLink: vi.fn<Act>(async () => undefined),
  explain: (error: unknown) => error,
  migrateIncoming: vi.fn<Act>(async () => undefined),
  migration: {
    parameters: { backendTransfer: false, exclude: [] as string[], downtimeLimitMs: 300 },
    info: { status: 'none' } as MigrationInfo,
    migrate: vi.fn<(uri: string) => Promise<void>>(async () => undefined),
    takeOver: vi.fn<(uri: string) => void>(),
    cancel: vi.fn<() => void>(),
  },
  upgrade: vi.fn<ControlTarget['upgrade']>(async () => ({ pid: 5 })),
  isReady: () => true,
  privileges: () => ({ mode: 'on' }),
  sendEvent: vi.fn<(event: string, data: object) => void>(),
}

let commands: ReturnType<typeof makeCommands>
let session: Session
beforeEach(() => {
  vi.clearAllMocks()
  sw.runState = 'running'
  ports = [port('a'), port('b', { gro: true })]
  commands = makeCommands(target)
  session = {
    id: 1,
    fds: new GivenFds(),
    received: [],
    captures: new Map(),
    ended: new Promise(() => undefined),
    isNegotiated: true,
    stays: false,
  }
  vi.spyOn(shim, 'close').mockReturnValue(0)
})
afterEach(() => {
  session.fds.close()
  vi.restoreAllMocks()
})

async function run(name: string, args: Record<string, unknown> = {}): Promise<unknown> {
  const answer = await commands.get(name)!.run(args, session)
  if (!(answer instanceof Pages)) return answer
  const all: unknown[] = []
  for await (const page of answer.pages) all.push(...page)
  return all
}

describe('the table', () => {
  test('has each command once, and says of each what it does', () => {
    expect(new Set(COMMANDS.map(({ name }) => name)).size).toBe(COMMANDS.length)
    for (const { description, arguments: members } of COMMANDS) {
      expect(description).toMatch(/^[A-Z].*\.$/s)
      for (const member of Object.values(members)) expect(member.description).toMatch(/^\S.*\.$/s)
    }
    for (const { description } of Object.values(EVENTS)) expect(description).toMatch(/\.$/)
  })

  test('is what query-commands tells, arguments as a JSON Schema', async () => {
    const all = (await run('query-commands')) as { name: string; arguments: object }[]
    expect(all.map(({ name }) => name)).toEqual(COMMANDS.map(({ name }) => name))
    const schemaOf = (name: string): object => all.find((one) => one.name === name)!.arguments
    expect(schemaOf('set_link')).toEqual({
      type: 'object',
      additionalProperties: false,
      required: ['name', 'up'],
      properties: {
        name: { type: 'string', description: 'The port.' },
        up: { type: 'boolean', description: 'Up (true) or down (false).' },
      },
    })
    expect(schemaOf('netdev_add')).not.toHaveProperty('additionalProperties')
    expect(schemaOf('capture-start')).toMatchObject({
      properties: {
        ports: { type: 'array', items: { type: 'string' } },
        direction: { enum: ['in', 'out', 'both'] },
        snaplen: { type: 'number' },
      },
    })
  })
})

describe('the state', () => {
  test('is told', async () => {
    expect(await run('query-version')).toEqual({ qemu: target.version, package: 'framepump' })
    const status = { status: 'running', running: true, io: 'read-write' }
    expect(await run('query-status')).toEqual({
      ...status,
      ready: true,
      privileges: { mode: 'on' },
    })
  })

  test('changes by stop and cont, with an event, and only if it is another', async () => {
    await run('cont')
    expect([target.resume, target.sendEvent].map((mock) => mock.mock.calls.length)).toEqual([0, 0])
    await run('stop')
    sw.runState = 'paused'
    await run('stop')
    expect(sw.pause).toHaveBeenCalledOnce()
    await run('cont')
    expect(target.resume).toHaveBeenCalledOnce()
    expect(target.sendEvent.mock.calls).toEqual([
      ['STOP', {}],
      ['RESUME', {}],
    ])
  })

  test('is asked for by migrate-incoming, config-reload and quit', async () => {
    await run('migrate-incoming')
    expect(target.migrateIncoming).toHaveBeenCalledOnce()
    await run('migrate-incoming', { uri: 'unix:/x' })
    expect(target.migration.takeOver).toHaveBeenCalledExactlyOnceWith('unix:/x')
    expect(target.migrateIncoming).toHaveBeenCalledOnce()
    expect(await run('config-reload')).toEqual({ actions: [], 'needs-restart': [] })
    await run('quit')
    expect(target.quit).toHaveBeenCalledOnce()
  })

  test('of a hand-over is set and told in the words of QEMU', async () => {
    const { migration } = target
    expect(await run('query-migrate-parameters')).toEqual({
      'backend-transfer': false,
      local: false,
      exclude: [],
      'downtime-limit': 300,
    })
    await run('migrate-set-parameters', { local: true, 'downtime-limit': 50 })
    await run('migrate-set-parameters', { exclude: ['a'] })
    const set = { backendTransfer: true, exclude: ['a'], downtimeLimitMs: 50 }
    expect(migration.parameters).toEqual(set)
    await expect(
      run('migrate-set-parameters', { local: true, 'backend-transfer': false }),
    ).rejects.toMatchObject({ code: 'BAD_OPTION' })
    await run('migrate', { uri: 'unix:/x' })
    expect(migration.migrate).toHaveBeenCalledExactlyOnceWith('unix:/x')
    await run('migrate_cancel')
    expect(migration.cancel).toHaveBeenCalledOnce()
    expect(await run('query-migrate')).toEqual({})
    migration.info = { status: 'failed', error: 'no', totalMs: 12.6 }
    expect(await run('query-migrate')).toEqual({
      status: 'failed',
      'total-time': 13,
      'error-desc': 'no',
    })
    const result = { pid: 7, release: '2.0.0', pauseUs: 1500, framesLost: 0, ports: ['a'] }
    migration.info = { status: 'completed', totalMs: 20, result }
    expect(await run('query-migrate')).toEqual({
      status: 'completed',
      'total-time': 20,
      pid: 7,
      release: '2.0.0',
      downtime: 2,
      'pause-us': 1500,
      'frames-lost': 0,
      ports: ['a'],
    })
    expect(await run('upgrade', { options: ['--io', 'auto'] })).toEqual({ pid: 5 })
    expect(target.upgrade).toHaveBeenCalledExactlyOnceWith(['--io', 'auto'], session.ended)
  })

  test('of a session is negotiated once', async () => {
    session.isNegotiated = false
    await expect(run('qmp_capabilities', { enable: ['oob'] })).rejects.toThrow(
      `Parameter 'enable' does not accept value 'oob'`,
    )
    expect(session.isNegotiated).toBe(false)
    await run('qmp_capabilities', { enable: [] })
    expect(session.isNegotiated).toBe(true)
    await expect(run('qmp_capabilities')).rejects.toThrow('negotiation is already complete')
  })
})

describe('ports', () => {
  test('are added with their options, and own the descriptors that they were given', async () => {
    session.fds.add('x', 1_000_000)
    session.fds.add('y', 1_000_001)
    await run('netdev_add', { type: 'tap', id: 'c', fd: 'x', mtu: '1400', peer: 'a' })
    const [options, given, peer] = target.addPort.mock.calls[0]
    expect(options).toEqual({ type: 'tap', id: 'c', fd: 'x', mtu: 1400 })
    expect([given.get('x'), peer]).toEqual([1_000_000, 'a'])
    expect([...session.fds.byName.keys()]).toEqual(['y'])
  })

  test('that cannot be added leave the descriptors to the client', async () => {
    session.fds.add('x', 1_000_000)
    target.addPort.mockRejectedValueOnce(new Error('no'))
    await expect(run('netdev_add', { type: 'tap', id: 'c', fd: 'x' })).rejects.toThrow('no')
    expect([...session.fds.byName.keys()]).toEqual(['x'])
  })

  test('with wrong options are refused with the first of them, and the name of the port', async () => {
    await expect(
      run('netdev_add', { type: 'tap', id: 'c', ifnam: 'x', queues: 0 }),
    ).rejects.toMatchObject({
      code: 'BAD_OPTION',
      message: 'unknown key "ifnam" for a tap port',
      hint: 'did you mean "ifname"?',
      port: 'c',
    })
    expect(target.addPort).not.toHaveBeenCalled()
  })

  test('are removed, and set up and down', async () => {
    await run('netdev_del', { id: 'a' })
    expect(sw.removePort).toHaveBeenCalledWith('a')
    await run('set_link', { name: 'a', up: false })
    expect(sw.setLink).toHaveBeenCalledWith('a', false)
  })

  test("are told in QMP's spelling, as many as there are", async () => {
    ports = Array.from({ length: 130 }, (_, k) => port(`p${k}`, { queuesAttached: 2 }))
    const told = (await run('query-ports')) as Record<string, unknown>[]
    expect(told.map(({ id }) => id)).toEqual(ports.map(({ id }) => id))
    expect(told[129]).toMatchObject({ 'queues-attached': 2, 'vnet-hdr-length': 12 })
    expect(told[129]).not.toHaveProperty('vnetHdrLength')
  })

  test("are counted, the kernel's drops included", async () => {
    const all = await run('query-port-stats')
    expect(all).toMatchObject([{ id: 'a', tx_segmented: 2, rx_kernel_dropped: 5 }, { id: 'b' }])
    expect(await run('query-port-stats', { id: 'b' })).toMatchObject([{ id: 'b' }])
    expect(sw.currentCounters).toHaveBeenCalledTimes(2)
  })

  test('meet one another, or the one that they are wired to', async () => {
    const pairs = async (args = {}): Promise<string[]> =>
      ((await run('query-offloads', args)) as { from: string; to: string }[]).map(
        ({ from, to }) => `${from}>${to}`,
      )
    expect(await pairs()).toEqual(['a>b', 'b>a'])
    ports = [port('a', { peer: 'b' }), port('b', { peer: 'a' }), port('c'), port('d')]
    expect(await pairs()).toEqual(['a>b', 'b>a', 'c>d', 'd>c'])
    expect(await pairs({ from: 'c' })).toEqual(['c>d'])
    ports = [port('a', { gro: true }), port('b')]
    expect(await run('query-offloads', { from: 'a' })).toEqual([
      {
        from: 'a',
        to: 'b',
        pass: ['csum'],
        software: ['tso4'],
        merge: ['tso6'],
        checksummed: 1,
        segmented: 2,
        coalesced: 3,
        dropped: 4,
      },
    ])
  })
})

test('links and addresses', async () => {
  await run('link-add', { a: 'x', b: 'y' })
  expect(target.addLink).toHaveBeenCalledWith('x', 'y')
  await run('link-del', { a: 'x', b: 'y' })
  expect(sw.removeLink).toHaveBeenCalledWith('x', 'y')
  expect(await run('query-links')).toEqual([{ a: 'a', b: 'b' }])
  const entry = { mac: '02:00:00:00:00:01', vlan: 10, port: 'a', 'age-s': 3 }
  expect(await run('query-mac-table')).toEqual([entry])
  expect(await run('query-vlans')).toEqual([{ vlan: 10, tagged: ['a'], untagged: [] }])
  expect(await run('query-switch-stats')).toEqual({ bursts: 7 })
})

test('F2: static entries are added, removed and flushed', async () => {
  const entry = { mac: '02:00:00:00:00:01', vlan: 10, port: 'a' }
  await run('fdb-add', entry)
  expect(sw.fdb.add).toHaveBeenCalledWith([entry])
  await run('fdb-del', { mac: entry.mac })
  expect(sw.fdb.remove).toHaveBeenCalledWith([{ mac: entry.mac }])
  await run('fdb-flush', { port: 'a', which: 'all' })
  expect(sw.fdb.flush).toHaveBeenLastCalledWith({ port: 'a', all: true })
  await run('fdb-flush')
  expect(sw.fdb.flush).toHaveBeenLastCalledWith({ all: false })
})

test('P8: groups are listed, each of them or some, and flushed', async () => {
  ports = [port('a'), port('b')]
  const router = { vlan: 0, family: 'ipv4', port: 'a', 'expires-s': 200, querier: '10.0.0.1' }
  const member = { vlan: 10, 'inner-vlan': 5, family: 'ipv6', group: 'ff15::1', port: 'b' }
  const known = { ...member, 'expires-s': 9 }
  const always = { vlan: 20, family: 'ipv4', port: 'b', 'multicast-router': 'always' }
  expect(await run('query-groups')).toEqual([router, known, always])
  expect(await run('query-groups', { port: 'a' })).toEqual([router])
  expect(await run('query-groups', { vlan: 10 })).toEqual([known])
  expect(await run('query-groups', { group: 'FF15::1' })).toEqual([known])
  expect(await run('query-groups', { group: 'ff15:0:0::0:1' })).toEqual([known])
  expect(await run('query-groups', { group: 'ff15::2' })).toEqual([])
  await run('groups-flush', { vlan: 10 })
  expect(sw.groups.flush).toHaveBeenLastCalledWith({ vlan: 10 })
})

test.each([
  [{ port: 'a' }, 1],
  [{ port: 'b' }, 0],
  [{ vlan: 10 }, 1],
  [{ vlan: 0 }, 0],
  [{ mac: '02-00-00-00-00-01' }, 1],
  [{ mac: '02:00:00:00:00:02' }, 0],
  [{ port: 'a', vlan: 11 }, 0],
])('F1: query-mac-table %j has %i entries', async (filter, count) => {
  ports = [port('a'), port('b')]
  expect(await run('query-mac-table', filter)).toHaveLength(count)
})

test.each([
  ['query-mac-table', { vlan: 4096 }, '"vlan" must be a number from 0 to 4095'],
  ['query-mac-table', { vlan: -1 }, '"vlan" must be a number from 0 to 4095'],
  ['query-mac-table', { mac: '02:00' }, '"02:00" is not a MAC address'],
  ['query-groups', { vlan: 1.5 }, '"vlan" must be a number from 0 to 4095'],
  ['query-groups', { group: '239.1.2' }, '"239.1.2" is no IP address'],
  ['query-groups', { group: 'ff02::1%eth0' }, '"ff02::1%eth0" is no IP address'],
  ['query-groups', { group: '239.1.2.0/24' }, '"239.1.2.0/24" is no IP address'],
])('%s %j asks for what cannot be', async (command, filter, why) => {
  await expect(run(command, filter)).rejects.toThrow(why)
})

describe('descriptors', () => {
  test('are kept by name, in the place of one before, and closed by name', async () => {
    session.received = [1_000_000]
    await run('getfd', { fdname: 'x' })
    expect([session.received, session.fds.byName.get('x')]).toEqual([[], 1_000_000])
    session.received = [1_000_001]
    await run('getfd', { fdname: 'x' })
    // What is received and left is closed by the server.
    expect([session.received, session.fds.byName.get('x')]).toEqual([[1_000_000], 1_000_001])
    session.received = []
    await run('closefd', { fdname: 'x' })
    expect([session.received, session.fds.byName.size]).toEqual([[1_000_001], 0])
  })

  test('that are not there are told so', async () => {
    await expect(run('getfd', { fdname: 'x' })).rejects.toThrow(
      'No file descriptor supplied via SCM_RIGHTS',
    )
    await expect(run('closefd', { fdname: 'x' })).rejects.toThrow(
      `File descriptor named 'x' not found`,
    )
  })
})

describe('captures', () => {
  test('into a file are started, told, and stopped', async () => {
    const capture = fakeCapture(3)
    sw.startCapture.mockResolvedValueOnce(capture)
    const args = { ports: ['a'], direction: 'both', snaplen: 64, count: 9, format: 'pcap' }
    expect(await run('capture-start', { ...args, path: '/x' })).toEqual({ id: 3 })
    expect(sw.startCapture).toHaveBeenCalledWith({
      ports: ['a'],
      direction: 'both',
      snapLength: 64,
      count: 9,
      format: 'pcap',
      to: { path: '/x' },
    })
    expect(session.captures.size).toBe(0)
    expect(await run('query-captures')).toEqual([
      {
        id: 3,
        to: '/x',
        format: 'pcap',
        direction: 'in',
        'snaplen-bytes': 64,
        frames: 2,
        'dropped-frames': 1,
      },
    ])
    sw.capture.mockReturnValueOnce(capture)
    expect(await run('capture-stop', { id: 3 })).toEqual(capture.summary)
    expect(sw.capture).toHaveBeenCalledWith(3)
  })

  test('into a descriptor end with their client', async () => {
    const capture = fakeCapture(4)
    sw.startCapture.mockResolvedValueOnce(capture)
    session.fds.add('x', 1_000_000)
    await run('capture-start', { fd: 'x' })
    expect(sw.startCapture).toHaveBeenCalledWith({ to: { fd: 1_000_000, truncate: false } })
    expect(session.fds.byName.size).toBe(0)
    for (const end of session.captures.values()) end()
    expect(capture.stop).toHaveBeenCalledOnce()
    await vi.waitFor(() => expect(session.captures.size).toBe(0))
  })

  test('that are refused leave their descriptor to be closed', async () => {
    sw.startCapture.mockRejectedValueOnce(new Error('no'))
    session.fds.add('x', 1_000_000)
    await expect(run('capture-start', { fd: 'x' })).rejects.toThrow('no')
    expect(session.received).toEqual([1_000_000])
  })

  test.each([
    [{}, `either 'fd' or 'path' is needed`],
    [{ fd: 'x', path: '/x' }, `either 'fd' or 'path' is needed`],
    [{ fd: 'x' }, `File descriptor named 'x' has not been found`],
  ])('need one place to go to: %j', async (args, text) => {
    await expect(run('capture-start', args)).rejects.toThrow(text)
    expect(sw.startCapture).not.toHaveBeenCalled()
  })
})

describe('mirrors', () => {
  test('are added, ended and told with what they have selected', async () => {
    await run('mirror-add', {
      name: 'm',
      'select-dst-port': ['a'],
      'output-port': 'b',
      snaplen: 64,
    })
    expect(sw.addMirror).toHaveBeenCalledWith({
      name: 'm',
      selectDstPort: ['a'],
      outputPort: 'b',
      snapLength: 64,
    })
    await expect(run('mirror-add', { name: 'm', 'output-port': 'b' })).rejects.toMatchObject({
      code: 'BAD_MIRROR',
    })
    await run('mirror-del', { name: 'm' })
    expect(sw.removeMirror).toHaveBeenCalledWith('m')
    expect(await run('query-mirrors')).toEqual([
      {
        name: 'm',
        'select-all': true,
        'output-port': 'b',
        snaplen: 64,
        missing: [],
        frames: 1,
        bytes: 60,
      },
    ])
  })
})
