/** The data plane allocates nothing: no garbage collection is caused by frames. */
import { expect, test } from 'vitest'
import { CLI, IO, Lab, tapSpec } from '../support/lab.ts'
import { until } from '../support/processes.ts'

const FRAMES = 1_000_000

test('a million frames cause no scavenge', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const ports = netns.flatMap((name, k) => ['--port', tapSpec(k, name, 'vnet_hdr=off')])
  const control = `${lab.directory}/control.sock`
  const daemon = lab.background(process.execPath, [
    '--trace-gc',
    CLI,
    'run',
    '--io',
    IO,
    '--control',
    control,
    ...ports,
  ])
  await until('it is ready', () => daemon.stderr.includes('framepump: ready'))
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  const arrived = (): number =>
    Number(lab.exec(netns[1], 'cat', '/sys/class/net/x0/statistics/rx_packets'))
  /** Offers frames until so many have come out at the far end. */
  const pump = async (count: number): Promise<void> => {
    const goal = arrived() + count
    while (arrived() < goal) await lab.flood(netns[0], 200_000, 60, lab.mac(netns[1])).exited
  }
  const collections = (): number => daemon.stdout.split(/Scavenge|Mark-Compact/).length - 1
  // The code is compiled, and the start-up's own garbage gone, after this.
  await pump(300_000)
  const before = collections()
  // Otherwise the trace would not work, and the test could not fail.
  expect(before).toBeGreaterThan(0)
  await pump(FRAMES)
  expect(collections() - before).toBe(0)
})
