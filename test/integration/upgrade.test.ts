/** A daemon that is replaced while frames pass, as whoever uses it sees that. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { ControlClient } from '../../src/control/client.ts'
import { shim } from '../../src/native/shim.ts'
import { Window } from '../../src/mem/window.ts'
import { FrontEnd, u64s } from '../support/front-end.ts'
import type { Daemon } from '../support/lab.ts'
import { Lab, tapSpec } from '../support/lab.ts'
import { introduce, listen, NumberedFlow } from '../support/numbered-flow.ts'
import { wrongRepliesOf } from '../support/pings.ts'
import { sh, until } from '../support/processes.ts'
import { addHosts, rawSpec } from '../support/raw-lab.ts'
import { frame } from '../support/sim.ts'
import { SteadyTransfer } from '../support/steady-transfer.ts'
import { makeTap } from '../support/tun.ts'
import { cli, isAlive, Line, listenerOf, tapQueuesOf } from '../support/upgrades.ts'

async function pair(
  lab: Lab,
  ...args: string[]
): Promise<{ daemon: Daemon; ends: { netns: string; address: string }[] }> {
  const netns = [lab.netns(), lab.netns()]
  const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, 'queues=2')])
  const daemon = await lab.daemon(...args, ...specs)
  const ends = netns.map((name, k) => ({ netns: name, address: `10.0.0.${k + 1}` }))
  for (const end of ends) {
    lab.address(end.netns, end.address)
    // What is sent while a daemon is not run waits.
    sh('ip', '-n', end.netns, 'link', 'set', 'x0', 'txqueuelen', '20000')
  }
  return { daemon, ends }
}

/** Answers that came to those who ping in a namespace when they had not read the ones before. */
function unreadAnswers(lab: Lab, netns: string): number {
  const sockets = lab.exec(netns, 'cat', '/proc/net/raw', '/proc/net/icmp').split('\n')
  const drops = sockets.map((line) => Number(line.trim().split(/\s+/).at(-1)))
  return drops.reduce((sum, one) => sum + (one || 0), 0)
}

test.for([['on'], ['off']] as const)(
  'H4, H16: three upgrades under a flood ping and a TCP transfer lose nothing, privileges %s',
  async ([privileges]) => {
    await using lab = new Lab()
    const { daemon, ends } = await pair(lab, '--privileges', privileges)
    const [a, b] = ends
    await using line = new Line(daemon)
    const transfer = await SteadyTransfer.start(lab, a, b)
    const ping = lab.start(b.netns, 'ping', '-n', '-i', '0.001', a.address)
    const pauses: number[] = []
    for (let round = 0; round < 3; round++) {
      const { pid, ports, 'pause-us': pauseUs, 'frames-lost': lost } = await line.upgrade()
      expect({ ports, lost }).toEqual({ ports: ['p0', 'p1'], lost: 0 })
      pauses.push(pauseUs)
      expect(tapQueuesOf(pid)).toBe(4)
    }
    const unread = unreadAnswers(lab, b.netns)
    ping.child.kill('SIGINT')
    await ping.exited
    const { sent, received } = await transfer.end()
    expect(received).toBe(sent)
    const { missing, ...others } = wrongRepliesOf(ping.stdout)
    expect(others).toEqual({ doubled: [], overtaken: [] })
    expect(missing.slice(unread)).toEqual([])
    console.log(`hand-over: pause ${pauses.join(', ')} us, privileges ${privileges}`)
    // What those before had is gone, and none of them is left.
    await line.areOthersGone()
    const rest = readdirSync(lab.directory).filter((name) => name.startsWith('control'))
    expect(rest.map((name) => join(lab.directory, name))).toEqual([daemon.control])
    expect(await line.execute('query-status')).toMatchObject({ status: 'running' })
  },
)

/** From A to B to C ... */
const LINE = 20
/** Of each direction: what waits while a machine is busy fits into the queues. */
const RATE_FPS = 500

test('H4, H5, H16: 20 upgrades in a row lose, double and overtake nothing', async () => {
  await using lab = new Lab()
  const { daemon, ends } = await pair(lab)
  const [a, b] = ends
  introduce(lab, a, b)
  await using line = new Line(daemon)
  const flows = [
    await NumberedFlow.start(lab, a, b, 5401, RATE_FPS),
    await NumberedFlow.start(lab, b, a, 5402, RATE_FPS),
  ]
  const pauses: number[] = []
  for (let time = 0; time < LINE; time++) {
    for (const flow of flows) await flow.more(100)
    const { 'pause-us': pauseUs, 'frames-lost': lost } = await line.upgrade()
    expect(lost).toBe(0)
    pauses.push(pauseUs)
  }
  for (const flow of flows) {
    await flow.more(100)
    expect(await flow.end()).toMatchObject({ frames: 0, duplicates: 0, overtaken: 0 })
  }
  expect(new Set(line.pids).size).toBe(LINE + 1)
  await line.areOthersGone()
  const sorted = pauses.toSorted((one, other) => one - other)
  console.log(`hand-over: ${LINE} pauses, median ${sorted[LINE / 2]}, at most ${sorted.at(-1)} us`)
}, 180_000)

/** Type of a frame as hex. */
const TYPE_AT = 12 * 2
const ANNOUNCING = ['0806', '8035']

/** Whoever sends may not have been run in a pause. */
const UPGRADES_MAX = 10

/** An upgrade tells how many frames of the flow found no room; `dropped`: those so far. */
async function expectTold(
  line: Line,
  flow: NumberedFlow,
  dropped: () => Promise<number>,
): Promise<void> {
  await flow.more(100)
  let told = 0
  for (let time = 0; time < UPGRADES_MAX && told === 0; time++) {
    const before = await dropped()
    told = (await line.upgrade())['frames-lost']
    await flow.more(100)
    expect(told).toBeLessThanOrEqual((await dropped()) - before)
  }
  expect(told).toBeGreaterThan(0)
  await flow.end()
}

test('H6, H15: what the kernel had no room for is told; nobody is announced who has not moved', async () => {
  await using lab = new Lab()
  const { daemon, ends } = await pair(lab)
  const [a, b] = ends
  introduce(lab, a, b)
  sh('ip', '-n', a.netns, 'link', 'set', 'x0', 'txqueuelen', '1')
  const dropped = async (): Promise<number> =>
    (await line.execute<Record<string, number>[]>('query-port-stats', { id: 'p0' }))[0][
      'rx_kernel_dropped'
    ]
  await using line = new Line(daemon)
  const flow = await NumberedFlow.start(lab, a, b, 5403, 5000)
  const seen = await listen(lab, b.netns, 'all')
  await expectTold(line, flow, dropped)
  await seen.stop()
  const frames = seen.stdout.split('\n').filter((line) => /^[0-9a-f]{28,}$/.test(line))
  expect(frames.length).toBeGreaterThan(100)
  const types = frames.map((hex) => hex.slice(TYPE_AT, TYPE_AT + 4))
  expect(types.filter((type) => ANNOUNCING.includes(type))).toEqual([])
})

test('H6: frames for which a raw socket had no room in its ring are told, too', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 2)
  // Three frames.
  const specs = hosts.flatMap((_, k) => ['--port', rawSpec(k, uplink, 'ring-kb=256')])
  const daemon = await lab.daemon(...specs)
  const [a, b] = hosts.map((netns, k) => ({ netns, address: `10.0.0.${k + 1}` }))
  for (const { netns, address } of [a, b]) lab.address(netns, address)
  introduce(lab, a, b)
  await using line = new Line(daemon)
  const dropped = async (): Promise<number> => {
    const all = await line.execute<Record<string, number>[]>('query-port-stats')
    return all.reduce((sum, one) => sum + one['rx_drop_kernel'], 0)
  }
  const flow = await NumberedFlow.start(lab, a, b, 5404, 5000)
  await expectTold(line, flow, dropped)
})

test('H14: a guest keeps its connection, and its frames go on', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'guest.sock')
  const specs = ['--port', `vhost-user,id=g,path=${path}`, '--port', tapSpec(0, lab.netns())]
  await using line = new Line(await lab.daemon(...specs))
  const guest = FrontEnd.connect(path)
  try {
    await guest.start()
    for (const count of [1, 2, 3]) {
      guest.transmit(frame(255, count))
      await until('its frame has come', async () => {
        const [stats] = await line.execute<Record<string, number>[]>('query-port-stats', {
          id: 'g',
        })
        return stats['rx_frames'] === count
      })
      expect(await line.upgrade()).toMatchObject({ ports: ['g', 'p0'], 'frames-lost': 0 })
      await line.areOthersGone()
    }
    const ports = await line.execute<{ id: string; state: string }[]>('query-ports')
    expect(ports).toMatchObject([{ state: 'connected' }, { state: 'open' }])
  } finally {
    guest.close()
  }
})

/** More than one message can carry descriptors. */
const MEMORY_FILES = 260

test('H10, H14: a guest whose memory is made up of many files goes on in the last one of them', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'guest.sock')
  await using line = new Line(await lab.daemon('--port', `vhost-user,id=g,path=${path}`))
  const guest = FrontEnd.connect(path)
  const [base, length] = [0x1_0000_0000, 4096]
  let last = -1
  await guest.start()
  for (let k = 0; k < MEMORY_FILES; k++) {
    if (last >= 0) shim.close(last)
    last = shim.memfdCreate('framepump-test-device', 1)
    shim.ftruncate(last, length)
    const at = base + k * length
    guest.send(37, u64s(0, at, length, 0x7e00_0000_0000 + k * length, 0), [last])
  }
  await guest.barrier()
  expect((await line.upgrade())['frames-lost']).toBe(0)
  const memory = Window.map(length, { fd: last })
  new Uint8Array(memory.buffer).set(frame(255, 9), 12)
  guest.descriptor(1, 0, base + (MEMORY_FILES - 1) * length, 12 + 60, 0)
  guest.offer(1, 0)
  await until('it is forwarded', async () => {
    const [g] = await line.execute<{ counters: { rx_frames: number } }[]>('query-ports')
    return g.counters.rx_frames > 0
  })
  memory.unmap()
  shim.close(last)
  guest.close()
})

test('SIGUSR2 replaces a daemon that may start programs; addresses and counters go on', async () => {
  await using lab = new Lab()
  const { daemon, ends } = await pair(lab, '--privileges', 'off')
  await using line = new Line(daemon)
  expect(lab.ping(ends[0].netns, ends[1].address)).toBe(3)
  const addresses = async (): Promise<string[]> =>
    (await line.execute<{ mac: string; port: string }[]>('query-mac-table'))
      .map(({ mac, port }) => `${mac} ${port}`)
      .toSorted()
  const before = { addresses: await addresses(), stats: await daemon.stats('p0') }
  await daemon.execute('migrate-set-parameters', { 'downtime-limit': 60_000 })
  process.kill(line.last, 'SIGUSR2')
  await until('another one listens', () => ![0, line.last].includes(listenerOf(line.control)))
  line.pids.push(listenerOf(line.control))
  await line.areOthersGone()
  expect(await addresses()).toEqual(before.addresses)
  const [stats] = await line.execute<Record<string, number>[]>('query-port-stats', { id: 'p0' })
  expect(stats['rx_frames']).toBeGreaterThanOrEqual(before.stats['rx_frames'])
  expect(stats['rx_frames']).toBeGreaterThan(3)
  expect(lab.ping(ends[0].netns, ends[1].address)).toBe(3)
})

test('SIGUSR2 does nothing to a daemon that may not, but for a line in its log', async () => {
  await using lab = new Lab()
  const { daemon } = await pair(lab)
  process.kill(daemon.process.child.pid!, 'SIGUSR2')
  const said = 'hand-over: not begun because="it may not start programs any more'
  await until('it says so', () => daemon.process.stderr.includes(said))
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
})

test('a daemon that ends while it is replaced leaves no successor behind', async () => {
  await using lab = new Lab()
  const { daemon } = await pair(lab, '--privileges', 'off')
  const pid = daemon.process.child.pid!
  const children = (): string =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, { encoding: 'utf8' }).trim()
  process.kill(pid, 'SIGUSR2')
  await until('there is a successor', () => children() !== '')
  const successor = Number(children().split(' ')[0])
  process.kill(pid, 'SIGTERM')
  await until('both have ended', () => !isAlive(pid) && !isAlive(successor))
  expect(readdirSync(lab.directory).filter((name) => name.startsWith('control'))).toEqual([])
})

test('H13: clients of the control socket go on with the successor, in the midst of a request, too', async () => {
  await using lab = new Lab()
  const { daemon } = await pair(lab)
  await using line = new Line(daemon)
  const told: string[] = []
  daemon.client.events.on('event', (name, { status }) => told.push(`${name} ${String(status)}`))
  let isClosed = false
  daemon.client.events.once('close', () => (isClosed = true))
  // One that has asked half of something.
  const socket = connect(daemon.control)
  let heard = ''
  socket.setEncoding('utf8').on('data', (text: string) => (heard += text))
  socket.write('{"execute":"qmp_capabilities"}\r\n{"execute":"query-ver')
  await until('it is negotiated', () => heard.includes('"return"'))
  const given = shim.open('/dev/null', 0)
  await daemon.client.execute('getfd', { fdname: 'mine' }, given)
  for (let round = 0; round < 2; round++) {
    told.length = 0
    await line.upgrade()
    await line.areOthersGone()
    await until('it was told', () => told.includes('RESUME undefined'))
    expect(told).toEqual([
      'MIGRATION setup',
      'MIGRATION active',
      'MIGRATION device',
      'STOP undefined',
      'MIGRATION completed',
      'RESUME undefined',
    ])
    expect(await daemon.execute('query-status')).toMatchObject({ status: 'running' })
  }
  heard = ''
  socket.write('sion","id":7}\r\n')
  await until('it is answered', () => heard.includes('"id": 7'))
  expect(heard).toContain('"package": "framepump"')
  socket.destroy()
  await daemon.execute('closefd', { fdname: 'mine' })
  await expect(daemon.execute('closefd', { fdname: 'mine' })).rejects.toThrow('mine')
  expect(isClosed).toBe(false)
  shim.close(given)
})

test.for([['on'], ['off']] as const)(
  'H1: --exclude after -- holds for both sides, and what was set goes on, privileges %s',
  async ([privileges]) => {
    await using lab = new Lab()
    const { daemon, ends } = await pair(lab, '--privileges', privileges)
    await using line = new Line(daemon)
    await daemon.execute('netdev_add', { type: 'virtio-net', id: 'v', driver: 'sink' })
    await expect(line.upgrade('--exclude', 'p0')).rejects.toThrow('port "p0": cannot be left out')
    // It was for that time.
    expect(await line.execute('query-migrate-parameters')).toMatchObject({ exclude: [] })
    await line.upgrade('--exclude=v')
    expect(await line.execute('query-migrate-parameters')).toMatchObject({
      exclude: ['v'],
      'downtime-limit': 60_000,
    })
    expect(lab.ping(ends[0].netns, ends[1].address)).toBe(3)
  },
)

test('options after -- come on top: a port more; those of a port that runs are refused by name', async () => {
  await using lab = new Lab()
  const { daemon, ends } = await pair(lab)
  await using line = new Line(daemon)
  const [a] = ends
  await expect(line.upgrade('--port', 'no-such-type,id=x')).rejects.toThrow(
    'the successor has ended',
  )
  const config = join(lab.directory, 'wanted.yaml')
  writeFileSync(config, 'ports: [{ id: added, type: pcap, record: /dev/null }]\n')
  await daemon.execute('netdev_add', { type: 'virtio-net', id: 'v', driver: 'echo' })
  await expect(line.upgrade()).rejects.toThrow('port "v": a virtio-net port cannot be handed over')
  await daemon.execute('netdev_del', { id: 'v' })
  await daemon.execute('netdev_add', { type: 'tap', id: 'byhand', ifname: 'x7', netns: a.netns })
  const more = `tap,id=byhand,ifname=x7,netns=${a.netns},queues=2`
  await expect(line.upgrade('--port', more)).rejects.toThrow('port "byhand": queues is')
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
  const { ports } = await line.upgrade('--config', config)
  expect(ports).toEqual(['p0', 'p1', 'byhand'])
  await until('the port is there', async () => {
    const all = await line.execute<{ id: string; state: string }[]>('query-ports')
    return all.some(({ id, state }) => id === 'added' && state === 'open')
  })
  // What came by hand is nobody's config, and what the config names is.
  await line.areOthersGone()
  const reload = await line.execute<{ actions: string[] }>('config-reload')
  expect(reload.actions).toEqual([])
})

test('by hand, as with QEMU: parameters, states and events on both sides, and what is paused stays so', async () => {
  await using lab = new Lab()
  const { daemon, ends } = await pair(lab)
  const uri = `unix:${join(lab.directory, 'next.sock')}`
  await expect(daemon.execute('migrate', { uri })).rejects.toThrow('nobody can be reached at')
  await expect(daemon.execute('migrate', { uri: 'tcp:localhost:1' })).rejects.toThrow(
    'descriptors pass by a UNIX socket only',
  )
  await daemon.execute('stop')
  const target = await lab.successor(daemon.control, '--incoming', uri, '--backend-transfer', 'off')
  expect(target.control).toBe(`${daemon.control}.incoming`)
  const events = { source: eventsOf(daemon.client), target: eventsOf(target.client) }
  // H3: the target has it off.
  const parameters = { local: true, 'downtime-limit': 60_000 }
  await daemon.execute('migrate-set-parameters', parameters)
  await daemon.execute('migrate', { uri })
  await until('it has failed', () => events.source.includes('failed'))
  expect(await daemon.execute('query-migrate')).toMatchObject({
    status: 'failed',
    'error-desc':
      'the other side gave up: backend-transfer is on at the source and off at the target (say the same by migrate-set-parameters at the source, and by options at the target)',
  })
  expect(await target.process.exited).toBe(1)
  events.source.length = 0
  const next = await lab.successor(daemon.control, '--incoming', uri)
  const told = eventsOf(next.client)
  await daemon.execute('migrate', { uri })
  await until('it has completed', () => events.source.includes('completed'))
  expect(events.source).toEqual(['setup', 'active', 'device', 'completed'])
  await until('the target has, too', () => told.includes('completed'))
  expect(told).toEqual(['active', 'device', 'completed'])
  expect(await daemon.execute('query-status')).toMatchObject({ status: 'postmigrate' })
  await expect(daemon.execute('cont')).rejects.toThrow('the switch was handed over')
  expect(await next.execute('query-status')).toMatchObject({ status: 'paused' })
  expect(await next.execute('query-migrate')).toMatchObject({ status: 'completed' })
  expect(await daemon.process.stop()).toBe(0)
  await next.execute('cont')
  expect(lab.ping(ends[0].netns, ends[1].address)).toBe(3)
})

test('H1: what is left out is opened by its name: all with backend-transfer off, one by exclude', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  for (const name of netns) makeTap(name, 1)
  const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, 'persist=on')])
  const first = await lab.daemon(...specs)
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  const uri = `unix:${join(lab.directory, 'next.sock')}`
  const limit = { 'downtime-limit': 60_000 }
  const second = await lab.successor(first.control, '--incoming', uri, '--backend-transfer', 'off')
  await first.execute('migrate-set-parameters', limit)
  await first.execute('migrate', { uri })
  await isRunning(second)
  await first.process.stop()
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  const third = await lab.successor(first.control, '--incoming', uri, '--exclude', 'p1')
  const parameters = { 'backend-transfer': true, exclude: ['p1'], ...limit }
  await second.execute('migrate-set-parameters', parameters)
  await second.execute('migrate', { uri })
  await isRunning(third)
  await second.process.stop()
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  // One that would be gone when it is closed cannot be left out.
  await third.execute('netdev_add', { type: 'tap', id: 't', ifname: 'x9', netns: netns[0] })
  await third.execute('migrate-set-parameters', { exclude: ['t'] })
  const answer = await cli('upgrade', '--control', first.control)
  expect(answer.code).toBe(1)
  expect(answer.stderr).toContain('port "t": cannot be left out: its TAP is not persistent')
  expect(answer.stderr).toContain('(hand it over: set backend-transfer=on')
})

const isRunning = (daemon: Daemon): Promise<void> =>
  until('it runs', async () => {
    const { running } = await daemon.execute<{ running: boolean }>('query-status')
    return running
  })

/** What becomes of hand-overs, as it is told from now on. */
function eventsOf(client: ControlClient): unknown[] {
  const statuses: unknown[] = []
  client.events.on('event', (name, { status }) => {
    if (name === 'MIGRATION') statuses.push(status)
  })
  return statuses
}
