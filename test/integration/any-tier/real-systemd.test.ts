/**
 * The units as shipped, run by a systemd as process 1: nothing of them is changed, as the program is where npm
 * puts it. What is lost when the service is killed is measured and printed.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { FrontEnd } from '../../support/front-end.ts'
import { Lab } from '../../support/lab.ts'
import { introduce, NumberedFlow } from '../../support/numbered-flow.ts'
import { sh, until } from '../../support/processes.ts'
import { addHosts, addPair, promiscuity } from '../../support/raw-lab.ts'
import { RealSystemd } from '../../support/real-systemd.ts'
import type { End } from '../../support/transfer.ts'
import { isAlive } from '../../support/upgrades.ts'

const UNIT = 'framepump.service'
const CONFIG = '/etc/framepump/framepump.yaml'
const RATE_FPS = 500
/** What the one that was killed had read, and what the other one had not written yet. */
const LOST_MAX = 100

const port = (id: string, more: string): string => `  - { id: ${id}, ${more} }\n`

interface Site {
  readonly machine: RealSystemd
  /** Of the service. */
  readonly home: string
  /** TAPs: in the service's network and in another one. */
  readonly ends: readonly [End, End]
  readonly ports: string
}

/** A machine on which it is configured, with two TAPs that nobody made persistent. */
async function configure(lab: Lab, more = ''): Promise<Site> {
  const ends = [1, 2].map((k) => ({ netns: lab.netns(), address: `10.0.0.${k}` }))
  const [a, b] = ends
  const machine = await RealSystemd.boot(lab, a.netns)
  const ports =
    port('a', 'type: tap, ifname: x0') + port('b', `type: tap, ifname: x0, netns: ${b.netns}`)
  machine.write(CONFIG, `state-dir: /var/lib/framepump\nports:\n${ports}${more}`)
  return { machine, home: a.netns, ends: [a, b], ports }
}

function setUp(lab: Lab, ends: readonly End[]): void {
  for (const { netns, address } of ends) {
    sh('ip', '-n', netns, 'link', 'set', 'x0', 'txqueuelen', '50000')
    lab.address(netns, address)
  }
  introduce(lab, ...ends)
}

const ifindex = ({ netns }: End): string => sh('ip', '-n', netns, '-o', 'link', 'show', 'x0')

async function mainPid(machine: RealSystemd): Promise<number> {
  return Number((await machine.show(UNIT, 'MainPID'))['MainPID'])
}

/** Kills the service; resolves with the milliseconds until systemd has the next one running. */
async function kill(machine: RealSystemd): Promise<number> {
  const before = await mainPid(machine)
  const start = performance.now()
  await machine.sh('systemctl', 'kill', '--signal=KILL', UNIT)
  await until('another one is active', async () => {
    const { MainPID, ActiveState } = await machine.show(UNIT, 'MainPID', 'ActiveState')
    return ActiveState === 'active' && MainPID !== '0' && Number(MainPID) !== before
  })
  return Math.round(performance.now() - start)
}

const stored = async (machine: RealSystemd): Promise<string> =>
  (await machine.show(UNIT, 'NFileDescriptorStore'))['NFileDescriptorStore']

test('the unit has ports of each kind under its restrictions, is reloaded, and stops', async () => {
  await using lab = new Lab()
  const others =
    port('up', 'type: raw-socket, ifname: u0') +
    port('g', 'type: vhost-user, path: /run/framepump/g.sock')
  const { machine, home, ends, ports } = await configure(lab, others)
  await using _ = machine
  const host = { netns: lab.netns(), address: '10.0.0.3' }
  addPair(home, 'u0', host.netns)
  // Returns when it has said READY=1.
  await machine.sh('systemctl', 'start', UNIT)
  const state = await machine.show(UNIT, 'ActiveState', 'StatusText', 'NRestarts')
  expect(state).toEqual({
    ActiveState: 'active',
    StatusText: expect.stringMatching(/^4 ports.*, running, io /),
    NRestarts: '0',
  })
  for (const { netns, address } of [...ends, host]) lab.address(netns, address)
  const [a, b] = ends
  expect(lab.ping(a.netns, b.address)).toBe(3)
  expect(lab.ping(host.netns, b.address)).toBe(3)
  const guest = FrontEnd.connect(machine.path('/run/framepump/g.sock'))
  await guest.start()
  await until('the status follows', async () =>
    (await machine.sh('systemctl', 'status', UNIT)).includes('Status: "4 ports, running, io '),
  )
  guest.close()

  const pid = machine.outside(await mainPid(machine))
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  expect(status).not.toMatch(/^Uid:\t0\t/m)
  expect(status).toMatch(/^NoNewPrivs:\t1$/m)
  expect(readFileSync(`/proc/${pid}/mounts`, 'utf8')).toMatch(/^\S+ \/ \S+ ro,/m)
  const privileges = JSON.parse(await machine.sh('framepump', 'show', 'privileges', '--json'))
  expect(privileges).toMatchObject({ privileges: { seccomp: true, 'no-new-privs': true } })
  expect(await machine.sh('systemd-analyze', 'security', '--no-pager', UNIT)).toContain(' OK ')

  const more = port('w', 'type: pcap, record: /var/lib/framepump/all.pcapng')
  machine.write(CONFIG, `state-dir: /var/lib/framepump\nports:\n${ports}${others}${more}`)
  await machine.sh('systemctl', 'reload', UNIT)
  await until('it is reloaded', async () =>
    (await machine.show(UNIT, 'StatusText'))['StatusText'].startsWith('5 ports'),
  )
  const record = machine.path('/var/lib/framepump/all.pcapng')
  await until('it records', () => {
    // Who asks for an address asks all.
    sh('ip', '-n', a.netns, 'neigh', 'flush', 'all')
    lab.ping(a.netns, b.address, 1)
    return statSync(record).size > 500
  })
  await machine.sh('systemctl', 'stop', UNIT)
  expect(await machine.show(UNIT, 'ActiveState', 'Result')).toEqual({
    ActiveState: 'inactive',
    Result: 'success',
  })
  for (const end of ends) expect(() => ifindex(end)).toThrow('does not exist')
  expect(existsSync(machine.path('/run/framepump'))).toBe(false)
  expect(await machine.log(UNIT)).not.toMatch(/not permitted|denied|error=|warning/i)
})

test('killed, it is started again with the descriptors that systemd has kept', async () => {
  await using lab = new Lab()
  const { machine, ends } = await configure(lab)
  await using _ = machine
  await machine.sh('systemctl', 'start', UNIT)
  setUp(lab, ends)
  const [a, b] = ends
  const before = ends.map(ifindex)
  const flows = [
    await NumberedFlow.start(lab, a, b, 5400, RATE_FPS),
    await NumberedFlow.start(lab, b, a, 5401, RATE_FPS),
  ]
  const restarts: number[] = []
  for (let round = 0; round < 3; round++) {
    await Promise.all(flows.map((flow) => flow.more(100)))
    expect(await stored(machine)).toBe('3')
    restarts.push(await kill(machine))
  }
  await Promise.all(flows.map((flow) => flow.more(100)))
  console.log(`systemd: killed three times, active again after ${restarts.join(', ')} ms`)
  for (const flow of flows) {
    const { sent, frames, duplicates } = await flow.end()
    console.log(`systemd: lost ${frames} of ${sent} frames`)
    expect(duplicates).toBe(0)
    expect(frames).toBeLessThan(LOST_MAX)
  }
  expect(ends.map(ifindex)).toEqual(before)
  expect((await machine.show(UNIT, 'NRestarts'))['NRestarts']).toBe('3')
  await machine.sh('systemctl', 'stop', UNIT)
  expect(await stored(machine)).toBe('0')
  for (const end of ends) expect(() => ifindex(end)).toThrow('does not exist')
})

test('who connects while it is killed and not started yet is answered', async () => {
  await using lab = new Lab()
  const sock = '/run/framepump/g.sock'
  const { machine } = await configure(lab, port('g', `type: vhost-user, path: ${sock}`))
  await using _ = machine
  await machine.sh('systemctl', 'start', UNIT)
  const [control, guest] = ['/run/framepump/control.sock', sock].map((at) => machine.path(at))
  const before = [control, guest].map((path) => statSync(path).ino)
  for (let round = 0; round < 3; round++) {
    const pid = machine.outside(await mainPid(machine))
    expect(await stored(machine)).toBe('4')
    process.kill(pid, 'SIGKILL')
    await until('it has ended', () => !isAlive(pid))
    const frontEnd = FrontEnd.connect(guest)
    const client = await ControlClient.connect(control)
    try {
      expect(await client.execute('query-status')).toMatchObject({ running: true })
      await frontEnd.start()
    } finally {
      client.close()
      frontEnd.close()
    }
  }
  expect([control, guest].map((path) => statSync(path).ino)).toEqual(before)
  // The journal may be behind what it is told of.
  const goneOn = async (): Promise<number> =>
    (await machine.log(UNIT)).split(': goes on with the kept socket path=').length - 1
  await until('it is in the journal', async () => (await goneOn()) >= 6)
  expect(await goneOn()).toBe(6)
  await machine.sh('systemctl', 'stop', UNIT)
  expect(await stored(machine)).toBe('0')
  expect(existsSync(machine.path('/run/framepump'))).toBe(false)
})

/** What a machine that starts a daemon leaves lying meanwhile. */
const RING = 'ring-kb: 65536'
const RAW_RATE_FPS = 200
/** A burst, which the killed one had read and not given back. */
const TWICE_MAX = 256

test('killed, it goes on with the rings of its raw sockets, which systemd has kept', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 2)
  await using machine = await RealSystemd.boot(lab, uplink)
  const ports = [0, 1].map((k) => port(`r${k}`, `type: raw-socket, ifname: u${k}, ${RING}`))
  machine.write(CONFIG, `ports:\n${ports.join('')}`)
  await machine.sh('systemctl', 'start', UNIT)
  const [a, b] = hosts.map((netns, k) => ({ netns, address: `10.0.0.${k + 1}` }))
  for (const { netns, address } of [a, b]) lab.address(netns, address)
  introduce(lab, a, b)
  const flows = [
    await NumberedFlow.start(lab, a, b, 5400, RAW_RATE_FPS),
    await NumberedFlow.start(lab, b, a, 5401, RAW_RATE_FPS),
  ]
  const kills = 3
  for (let round = 0; round < kills; round++) {
    await Promise.all(flows.map((flow) => flow.more(50)))
    expect(await stored(machine)).toBe('3')
    await kill(machine)
    expect(promiscuity(uplink)).toEqual(['1', '1'])
  }
  await Promise.all(flows.map((flow) => flow.more(50)))
  for (const flow of flows) {
    const { sent, frames, duplicates } = await flow.end()
    console.log(`systemd: raw sockets: lost ${frames}, twice ${duplicates} of ${sent} frames`)
    expect(frames).toBeLessThan(LOST_MAX)
    expect(duplicates).toBeLessThan(kills * TWICE_MAX)
  }
  const goneOn = async (): Promise<number> =>
    (await machine.log(UNIT)).split(/raw-socket r\d: goes on with kept descriptors/).length - 1
  await until('it is in the journal', async () => (await goneOn()) >= 2 * kills)
  expect(await goneOn()).toBe(2 * kills)
  await machine.sh('systemctl', 'stop', UNIT)
  expect(await stored(machine)).toBe('0')
  expect(promiscuity(uplink)).toEqual(['0', '0'])
})

test('an upgrade makes another process the service, which systemd watches and stops as well', async () => {
  await using lab = new Lab()
  const { machine, ends, ports } = await configure(lab)
  await using _ = machine
  await machine.sh('systemctl', 'start', UNIT)
  setUp(lab, ends)
  const [a, b] = ends
  const before = ends.map(ifindex)
  const flow = await NumberedFlow.start(lab, a, b, 5400, RATE_FPS)
  /** Twice, as the second is one that was started by a hand-over itself. */
  const upgrade = async (): Promise<void> => {
    const pid = await mainPid(machine)
    await flow.more(100)
    await machine.sh('framepump', 'ctl', 'migrate-set-parameters', 'downtime-limit=60000')
    const said = JSON.parse(await machine.sh('framepump', 'upgrade', '--json'))
    const lacks = ['session', 'environment', 'limits']
    expect(said).toMatchObject({ ports: ['a', 'b'], 'not-inherited': lacks })
    expect(said.pid).not.toBe(pid)
    await until('it is the service', async () => (await mainPid(machine)) === said.pid)
    await until('its status is told', async () =>
      (await machine.show(UNIT, 'StatusText'))['StatusText'].startsWith('2 ports, running'),
    )
    await until(
      'it has stored its TAPs and its socket',
      async () => (await stored(machine)) === '3',
    )
  }
  await upgrade()
  await upgrade()
  // What it may do is what the unit's own may.
  const shown = await machine.sh('framepump', 'show', 'privileges')
  expect(shown).toMatch(/^thread .*net-admin,net-raw,sys-admin/m)
  machine.write(CONFIG, `ports:\n${ports}${port('lo', 'type: raw-socket, ifname: u0')}`)
  addPair(a.netns, 'u0', lab.netns())
  await machine.sh('systemctl', 'reload', UNIT)
  await until('it is reloaded', async () =>
    (await machine.show(UNIT, 'StatusText'))['StatusText'].startsWith('3 ports'),
  )
  const ms = await kill(machine)
  await flow.more(100)
  const { sent, frames, duplicates } = await flow.end()
  console.log(`systemd: upgraded twice, killed (${ms} ms): lost ${frames} of ${sent} frames`)
  expect(duplicates).toBe(0)
  expect(frames).toBeLessThan(LOST_MAX)
  expect(ends.map(ifindex)).toEqual(before)
  await machine.sh('framepump', 'upgrade')
  await machine.sh('systemctl', 'stop', UNIT)
  // It was let end by itself, and is no failure.
  expect(await machine.show(UNIT, 'ActiveState', 'Result')).toEqual({
    ActiveState: 'inactive',
    Result: 'success',
  })
  for (const end of ends) expect(() => ifindex(end)).toThrow('does not exist')
  // The journal has times of its own.
  expect(await machine.log(UNIT)).not.toMatch(/^\d{4}-\d\d-\d\dT/m)
})

test('a wrong config ends with 2, is told, and is not tried again', async () => {
  await using lab = new Lab()
  const { machine, ports } = await configure(lab)
  await using _ = machine
  machine.write(CONFIG, `ports:\n${ports}nonsense: 1\n`)
  expect((await machine.run('systemctl', 'start', UNIT)).code).toBe(1)
  const names = ['ActiveState', 'SubState', 'Result', 'ExecMainStatus', 'NRestarts'] as const
  // Were it to be tried again, it would be `activating`, and `auto-restart`.
  expect(await machine.show(UNIT, ...names)).toEqual({
    ActiveState: 'failed',
    SubState: 'failed',
    Result: 'exit-code',
    ExecMainStatus: '2',
    NRestarts: '0',
  })
  await until('why is told', async () =>
    (await machine.run('systemctl', 'status', UNIT)).stdout.includes('nonsense'),
  )
  machine.write(CONFIG, `ports:\n${ports}`)
  await machine.sh('systemctl', 'start', UNIT)
  // Wrong while it runs, it goes on as it was.
  machine.write(CONFIG, `ports:\n${ports}nonsense: 1\n`)
  await machine.run('systemctl', 'reload', UNIT)
  await until('it says so', async () =>
    (await machine.sh('systemctl', 'status', UNIT)).includes('not reloaded'),
  )
  expect((await machine.show(UNIT, 'ActiveState'))['ActiveState']).toBe('active')
})

test('the template makes several, each with a socket and a store of its own', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  await using machine = await RealSystemd.boot(lab, netns)
  for (const name of ['one', 'two']) {
    machine.write(
      `/etc/framepump/${name}.yaml`,
      `ports:\n${port('p', `type: tap, ifname: ${name}0`)}`,
    )
    await machine.sh('systemctl', 'start', `framepump@${name}`)
  }
  for (const name of ['one', 'two']) {
    const control = `/run/framepump-${name}/control.sock`
    const shown = await machine.sh('framepump', 'show', 'ports', '--json', '--control', control)
    expect(JSON.parse(shown)).toMatchObject([{ ifname: `${name}0` }])
    const state = await machine.show(`framepump@${name}`, 'NFileDescriptorStore', 'ActiveState')
    expect(state).toEqual({ NFileDescriptorStore: '2', ActiveState: 'active' })
  }
  await machine.sh('systemctl', 'stop', 'framepump@one')
  expect(sh('ip', '-n', netns, '-o', 'link', 'show')).toMatch(/two0/)
  expect(sh('ip', '-n', netns, '-o', 'link', 'show')).not.toMatch(/one0/)
})
