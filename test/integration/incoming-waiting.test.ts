/**
 * Before the pre-incoming point: what a newcomer with `--incoming defer` must not do to TAPs that
 * their owner uses, seen from the kernel, from /proc and in the shim's calls.
 */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch } from '../../src/index.ts'
import { IFNAME, IO, Lab, tapSpec } from '../support/lab.ts'
import type { Daemon } from '../support/lab.ts'
import { sh } from '../support/processes.ts'
import {
  capturedFlows,
  flowFrames,
  Holder,
  makeTap,
  numbers,
  settings,
  tunCalls,
  tunDescriptors,
  tunState,
} from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const FLOWS = numbers(50)
const EACH = 40
const OPTIONS = 'queues=4,persist=on,sndbuf=100000,script=no,downscript=no'

/** A switch in this process with a TAP of four queues in each namespace. */
async function ownerOf(netns: readonly string[]): Promise<Switch> {
  const owner = createSwitch({ io: IO as 'auto' })
  for (const [k, name] of netns.entries()) {
    makeTap(name, 4)
    // What is sent while the owner is not run waits.
    sh('ip', '-n', name, 'link', 'set', IFNAME, 'txqueuelen', '20000')
    const tap = { type: 'tap', ifname: 'x0', queues: 4, persist: true, sndbuf: 100_000 } as const
    await owner.addPort({ ...tap, id: `p${k}`, netns: name })
  }
  return owner
}

/** A newcomer with the owner's ports, and where it traces its calls. */
async function newcomer(lab: Lab, netns: string[]): Promise<{ daemon: Daemon; trace: string }> {
  const trace = join(lab.directory, 'trace')
  const specs = netns.flatMap((name, k) => ['--port', tapSpec(k, name, OPTIONS)])
  return { daemon: await lab.incoming(lab.controlPath(), trace, ...specs), trace }
}

/**
 * Sends 2,000 frames of 50 flows, and again as long as `meanwhile` runs; what became of them.
 */
async function stream(
  lab: Lab,
  owner: Switch,
  netns: string,
  meanwhile: () => Promise<void>,
): Promise<{ missing: number; isInOrder: boolean }> {
  const path = join(lab.directory, 'stream.pcapng')
  const passed = (): number => owner.port('p1').counters.tx_frames
  const before = passed()
  const capture = await owner.startCapture({ to: { path }, ports: ['p1'], direction: 'out' })
  let isOver = false
  let sent = 0
  const done = meanwhile().finally(() => (isOver = true))
  do {
    await lab.send(netns, flowFrames(FLOWS, EACH, sent))
    sent += EACH
  } while (!isOver)
  await done
  // Whatever has not come by now has gone elsewhere.
  await owner.pause()
  await capture.stop()
  await owner.resume()
  const flows = [...capturedFlows(path).values()]
  const isInOrder = flows.every((flow) =>
    flow.every((number, at) => at === 0 || flow[at - 1] < number),
  )
  return { missing: FLOWS.length * sent - (passed() - before), isInOrder }
}

const UNDISTURBED = { missing: 0, isInOrder: true }

test('E1, P7: a newcomer that waits has nothing of the TAPs, and their owner forwards undisturbed', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  await using owner = await ownerOf(netns)
  const fds = tunDescriptors(process.pid)
  expect(fds).toHaveLength(8)
  const before = netns.map((name) => settings(name, fds))
  let come!: { daemon: Daemon; trace: string }
  const passed = await stream(lab, owner, netns[0], async () => {
    come = await newcomer(lab, netns)
    const { daemon } = come
    // Nothing that one can ask for while it waits makes it touch them either.
    await daemon.execute('set_link', { name: 'p0', up: false })
    await daemon.execute('set_link', { name: 'p0', up: true })
    await daemon.execute('link-add', { a: 'p0', b: 'p1' })
    await daemon.execute('stop')
    await daemon.execute('link-del', { a: 'p0', b: 'p1' })
    await daemon.execute('netdev_del', { id: 'p1' })
  })
  expect(passed).toEqual(UNDISTURBED)
  const { daemon, trace } = come
  const ports = await daemon.execute<unknown[]>('query-ports')
  expect(ports).toMatchObject([
    { id: 'p0', state: 'postponed', queues: 4, ifname: 'x0', netns: netns[0] },
  ])
  expect(await daemon.execute('query-status')).toMatchObject({
    status: 'inmigrate',
    running: false,
  })
  expect(tunDescriptors(daemon.process.child.pid!)).toEqual([])
  expect(tunCalls(trace)).toEqual([])
  expect(netns.map((name) => settings(name, fds))).toEqual(before)
  // E1: the same options without --incoming go for the TAP at once.
  const spec = tapSpec(0, netns[0], `${OPTIONS},vnet_hdr=on`).replace('queues=4', 'queues=1')
  await expect(lab.daemon('--port', spec)).rejects.toThrow('could not configure /dev/net/tun (x0)')
})

test('1.7: a signal that comes too early steals none of 2,000 frames, and changes nothing', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  await using owner = await ownerOf(netns)
  const fds = tunDescriptors(process.pid)
  const { daemon, trace } = await newcomer(lab, netns)
  const before = netns.map((name) => settings(name, fds))
  const passed = await stream(lab, owner, netns[0], async () => {
    const start = performance.now()
    await expect(daemon.execute('migrate-incoming')).rejects.toThrow(
      'tap p0 queue 0: x0: 4 queues are still attached by another process',
    )
    expect(performance.now() - start).toBeGreaterThan(950)
  })
  expect(passed).toEqual(UNDISTURBED)
  expect(netns.map((name) => settings(name, fds))).toEqual(before)
  expect(tunCalls(trace)).toEqual([])
  expect(tunDescriptors(daemon.process.child.pid!)).toEqual([])
  expect(await daemon.port('p0')).toMatchObject({
    state: 'postponed',
    error: 'tap p0 queue 0: x0: 4 queues are still attached by another process',
  })
  expect(await daemon.port('p1')).not.toHaveProperty('error')
  // The owner ends while the signal waits: that is in time, if it takes less than the second for which it waits.
  const start = performance.now()
  const signal = daemon.execute('migrate-incoming')
  await owner.close()
  const closedMs = performance.now() - start
  await signal.catch((error: Error) => {
    if (closedMs < 900) throw error
    return daemon.execute('migrate-incoming')
  })
  expect(netns.map((name) => tunState(name)!.held)).toEqual([4, 4])
  expect(await daemon.port('p0')).toMatchObject({ state: 'open' })
  expect(await daemon.port('p0')).not.toHaveProperty('error')
})

test('E5, 1.7: a TAP that is not postponed is opened at once, but never beside its owner', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  await using owner = await ownerOf(netns)
  const passed = await stream(lab, owner, netns[0], async () => {
    const spec = tapSpec(0, netns[0], 'queues=4,persist=on')
    const trace = join(lab.directory, 'trace')
    await expect(lab.incoming(lab.controlPath(), trace, '--port', spec)).rejects.toThrow(
      'framepump: port "p0": x0: 4 queues are still attached by another process',
    )
    expect(tunCalls(trace)).toEqual([])
  })
  expect(passed).toEqual(UNDISTURBED)
  await owner.close()
  // One that does not exist is made, also when it is to persist: nobody was to leave it.
  const fresh = lab.netns()
  await using sw = createSwitch({ io: IO as 'auto', incoming: true })
  const tap = { type: 'tap', id: 'p0', ifname: 'x0', queues: 4 } as const
  expect(await sw.addPort({ ...tap, netns: netns[0] })).toMatchObject({ state: 'open' })
  expect(await sw.addPort({ ...tap, id: 'p1', netns: fresh, persist: true })).toMatchObject({
    state: 'open',
    notPostponed: 'script not given: add script=no,downscript=no',
  })
})

test('the stream notices a theft: a queue that somebody else attaches takes its share', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  await using owner = await ownerOf(netns)
  using thief = new Holder(netns[0], 1, 'x0', true)
  const { missing } = await stream(lab, owner, netns[0], () => Promise.resolve())
  const stolen = [...thief.drain(0).values()].reduce((sum, count) => sum + count, 0)
  expect(stolen).toBeGreaterThan(0)
  expect(missing).toBe(stolen)
})
