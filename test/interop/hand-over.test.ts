/** DPDK's virtio-user front-end, whose switch is handed over again and again: it answers every ping all the while. */
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch } from '../../src/index.ts'
import { moveSwitch } from '../support/hand-over.ts'
import { IO, Lab } from '../support/lab.ts'
import { repliesOf, wrongOf } from '../support/pings.ts'
import { until } from '../support/processes.ts'
import { HugePages } from '../support/huge-pages.ts'
import { startTestpmd, TESTPMD_PAGES } from '../support/testpmd.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
/** What waits for a testpmd that is not run for some seconds has room in its ring. */
const [PINGS, EVERY_S, RING] = [1000, 0.005, 'queue_size=1024']

let pages: HugePages
beforeAll(() => {
  pages = new HugePages(TESTPMD_PAGES)
})
afterAll(() => pages.putBack())

const made: Switch[] = []
afterEach(async () => {
  for (const sw of made.splice(0)) await sw.close()
})

function make(incoming = false): Switch {
  const sw = createSwitch({ io: IO as 'auto', incoming })
  made.push(sw)
  return sw
}

test.each(['mrg_rxbuf=1', 'packed_vq=1,mrg_rxbuf=1,in_order=1'])(
  'H5, H14, H16: testpmd with %s answers every ping',
  async (device) => {
    await using lab = new Lab()
    const netns = lab.netns()
    const path = join(lab.directory, 'guest.sock')
    let sw = make()
    await sw.addPort({ type: 'tap', id: 't', ifname: 'x0', netns, up: true })
    await sw.addPort({ type: 'vhost-user', id: 'g', path })
    lab.address(netns, '10.0.0.1')
    const testpmd = await startTestpmd(lab, {
      devices: [`path=${path},queues=1,${RING},${device}`],
    })
    await until('it runs', () => sw.port('g').state === 'connected')
    await testpmd.command('set fwd icmpecho')
    await testpmd.command('start')
    expect(lab.ping(netns, '10.0.0.99')).toBe(3)
    // With a deadline it waits for the last one as for the others.
    const args = ['-n', '-c', String(PINGS), '-i', String(EVERY_S), '-w', '120', '-D', '10.0.0.99']
    const ping = lab.start(netns, 'ping', ...args)
    let moves = 0
    while (ping.isRunning) {
      if (moves++ % 4 === 0) {
        await sw.handOver()
        await sw.takeBack()
      } else {
        const next = make(true)
        await moveSwitch(sw, next)
        sw = next
      }
    }
    await ping.exited
    expect(repliesOf(ping.stdout).length).toBeGreaterThanOrEqual(PINGS)
    expect(wrongOf(ping.stdout)).toEqual([])
    expect(moves).toBeGreaterThan(4)
    expect(sw.port('g')).toMatchObject({ state: 'connected', counters: { tx_drop_full: 0 } })
    await testpmd.quit()
  },
)
