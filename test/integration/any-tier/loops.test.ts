/**
 * Two ports that are connected outside the switch: whatever is sent to everybody goes round for ever, in
 * both directions.
 *
 *     [daemon]--x1 (TAP)--[bridge x0]--x2 (TAP)--[daemon]
 *     [daemon]--x1 (raw socket)--veth pair--x2 (raw socket)--[daemon]--x0 (TAP)
 */
import { expect, test } from 'vitest'
import type { Daemon } from '../../support/lab.ts'
import { CLI, frameHex, IFNAME, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SENDER = '02:00:00:00:00:01'
/** What the control socket mostly answers within, with the machine's other work beside the storm. */
const ANSWER_MS = 2000

interface Storm {
  readonly daemon: Daemon
  readonly netns: string
  readonly events: unknown[]
}

/** A daemon with ports `a` and `b`, between which frames go round, and as many other TAPs. */
async function raiseStorm(lab: Lab, frames = 1, others = 0): Promise<Storm> {
  const netns = lab.netns()
  const port = (id: string, ifname: string): string[] => [
    '--port',
    `tap,id=${id},ifname=${ifname},netns=${netns},up=on`,
  ]
  const rest = Array.from({ length: others }, (_, k) => port(`o${k}`, `y${k}`)).flat()
  const daemon = await lab.daemon(...port('a', 'x1'), ...port('b', 'x2'), ...rest)
  const events = loopEvents(daemon)
  const ip = (...args: string[]): string => sh('ip', '-n', netns, 'link', ...args)
  ip('add', IFNAME, 'type', 'bridge', 'mcast_snooping', '0')
  for (const ifname of ['x1', 'x2']) ip('set', ifname, 'master', IFNAME)
  ip('set', IFNAME, 'up')
  await until('the bridge forwards', () => {
    const states = sh('bridge', '-n', netns, 'link').match(/state \w+/g) ?? []
    return states.length === 2 && states.every((state) => state === 'state forwarding')
  })
  await lab.send(netns, broadcasts(frames))
  return { daemon, netns, events }
}

const broadcasts = (count: number): string[] =>
  Array.from({ length: count }, (_, k) => frameHex(BROADCAST, SENDER, k))

function loopEvents(daemon: Daemon): unknown[] {
  const events: unknown[] = []
  daemon.client.events.on('event', (event, data) => {
    if (event === 'LOOP_DETECTED') events.push(data)
  })
  return events
}

const loopSeconds = async (daemon: Daemon): Promise<number> =>
  (await daemon.execute<{ loop_seconds: number }>('query-switch-stats')).loop_seconds

/** Frames that have come in by these ports so far. */
async function received(daemon: Daemon): Promise<number> {
  const ports = await daemon.execute<{ rx_frames: number }[]>('query-port-stats')
  return ports.reduce((sum, { rx_frames: frames }) => sum + frames, 0)
}

async function stormsOn(daemon: Daemon): Promise<void> {
  const before = await received(daemon)
  await until('a thousand frames more', async () => (await received(daemon)) > before + 1000)
}

/** Who once has no processor for a while is no fault of the daemon. */
class Answers {
  readonly #daemon: Daemon
  readonly #tookMs: number[] = []

  constructor(daemon: Daemon) {
    this.#daemon = daemon
  }

  async to(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const start = performance.now()
    const answered = await this.#daemon.execute(command, args)
    this.#tookMs.push(performance.now() - start)
    return answered
  }

  get medianMs(): number {
    return this.#tookMs.toSorted((one, other) => one - other)[this.#tookMs.length >> 1]
  }
}

const linesOf = (daemon: Daemon): string[] =>
  daemon.process.stderr.split('\n').filter((line) => line.includes('keeps moving'))

test('a loop is told once and counted, and the daemon answers; without a port the storm is over', async () => {
  await using lab = new Lab()
  const { daemon, netns, events } = await raiseStorm(lab)
  await until('it is seen for some seconds', async () => (await loopSeconds(daemon)) >= 3)
  expect(linesOf(daemon)).toEqual([
    expect.stringMatching(
      `switch: ${SENDER} keeps moving between ports "a" and "b" \\(\\d+ times in a second\\): .*\\(a loop\\)`,
    ),
  ])
  expect(events).toEqual([{ mac: SENDER, ports: ['a', 'b'], moves: expect.any(Number) }])
  const shown = sh(process.execPath, CLI, 'show', 'stats', '--control', daemon.control)
  expect(shown).toMatch(/^switch +mac_moves +\d{3,}$/m)
  expect(shown).toMatch(/^switch +loop_seconds +\d+$/m)

  await stormsOn(daemon)
  const answers = new Answers(daemon)
  for (let round = 0; round < 20; round++) {
    expect(await answers.to('query-status')).toMatchObject({ running: true })
    expect(await answers.to('query-ports')).toHaveLength(2)
    await answers.to('query-switch-stats')
    expect(await answers.to('query-mac-table')).toMatchObject([{ mac: SENDER }])
  }
  expect(answers.medianMs).toBeLessThan(ANSWER_MS)
  const changes = new Answers(daemon)
  for (let round = 0; round < 3; round++) {
    await changes.to('netdev_add', { type: 'tap', id: 'c', ifname: 'x3', netns })
    await changes.to('netdev_del', { id: 'c' })
  }
  expect(changes.medianMs).toBeLessThan(ANSWER_MS)
  await stormsOn(daemon)
  expect([linesOf(daemon).length, events.length]).toEqual([1, 1])

  await daemon.execute('netdev_del', { id: 'b' })
  let last = -1
  await until('no frame goes round', async () => {
    const before = last
    last = await received(daemon)
    return last === before
  })
  expect(await daemon.port('a')).toMatchObject({ state: 'open' })
})

test('a port that is set down ends the storm, and one that goes on is told again', async () => {
  await using lab = new Lab()
  const { daemon, netns, events } = await raiseStorm(lab)
  await until('it is told', () => events.length === 1)
  await daemon.execute('set_link', { name: 'b', up: false })
  await until('the link is down', async () => (await daemon.port('b'))['state'] === 'down')
  const before = await loopSeconds(daemon)
  await daemon.execute('netdev_del', { id: 'b' })
  await daemon.execute('netdev_add', { type: 'tap', id: 'd', ifname: 'x2', netns, up: 'on' })
  sh('ip', '-n', netns, 'link', 'set', 'x2', 'master', IFNAME)
  await until('the storm is back', async () => {
    await lab.send(netns, broadcasts(1))
    return (await loopSeconds(daemon)) > before
  })
  await until('it is told as another one', () => events.length === 2)
  expect(events[1]).toMatchObject({ mac: SENDER, ports: ['a', 'd'] })
  await until('the log has both', () => linesOf(daemon).length >= 2)
  expect(linesOf(daemon)).toHaveLength(2)
})

test('a daemon in the midst of a storm ends when it is told to', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await raiseStorm(lab)
  await stormsOn(daemon)
  expect(await daemon.process.stop('SIGTERM')).toBe(0)
  expect(daemon.process.stderr).toContain('stopping reason=SIGTERM')
  expect(lab.exec(netns, 'ls', '/sys/class/net').split('\n')).not.toContain('x1')
})

test('where each frame goes to many ports there are few of them in a turn', async () => {
  const OTHERS = 40
  await using lab = new Lab()
  const { daemon } = await raiseStorm(lab, 500, OTHERS)
  const burstsNow = async (): Promise<number> =>
    (await daemon.execute<{ bursts: number }>('query-switch-stats')).bursts
  await stormsOn(daemon)
  // In this order: all frames in between are of bursts that are counted.
  const bursts = await burstsNow()
  const frames = await received(daemon)
  await stormsOn(daemon)
  const framesLater = await received(daemon)
  const burstsLater = await burstsNow()
  // A turn is a burst or two, and has time for a thousand writes.
  expect((framesLater - frames) / (burstsLater - bursts)).toBeLessThan(40)
  await until('it is told', async () => (await loopSeconds(daemon)) > 0)
  await daemon.execute('netdev_del', { id: 'b' })
})

test('a veth pair with both ends on the switch is a loop as well', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  sh('ip', '-n', netns, 'link', 'add', 'x1', 'type', 'veth', 'peer', 'name', 'x2')
  for (const ifname of ['x1', 'x2']) sh('ip', '-n', netns, 'link', 'set', ifname, 'up')
  const raw = (id: string, ifname: string): string[] => [
    '--port',
    `raw-socket,id=${id},ifname=${ifname},netns=${netns}`,
  ]
  const tap = `tap,id=t,ifname=${IFNAME},netns=${netns},up=on`
  const daemon = await lab.daemon(...raw('a', 'x1'), ...raw('b', 'x2'), '--port', tap)
  const events = loopEvents(daemon)
  await lab.send(netns, broadcasts(1))
  await until('it is told', () => events.length > 0)
  expect(events[0]).toMatchObject({ mac: SENDER, ports: ['a', 'b'] })
  await stormsOn(daemon)
  await daemon.execute('netdev_del', { id: 'b' })
  await until('no frame goes round', async () => {
    const before = await received(daemon)
    return before === (await received(daemon))
  })
  expect(events).toHaveLength(1)
})
