/** Raw socket ports that another switch goes on with: the same sockets and rings, no frame lost or doubled. */
import { afterEach, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, HandedSwitch, Switch } from '../../src/index.ts'
import { shim } from '../../src/native/shim.ts'
import { exchange, moveSwitch, numbers, received } from '../support/hand-over.ts'
import { IO, Lab } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import { addHosts, setLink, uplinkName } from '../support/raw-lab.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const io = IO as 'auto'
const made: Switch[] = []
afterEach(async () => {
  for (const sw of made.splice(0)) await sw.close()
})

function make(incoming = false): Switch {
  const sw = createSwitch({ io, incoming })
  made.push(sw)
  return sw
}

async function uplinks(lab: Lab, more: object): Promise<[Switch, string[], string]> {
  const { uplink, hosts } = addHosts(lab, 2)
  hosts.forEach((host, k) => lab.address(host, `10.0.0.${k + 1}`))
  const sw = make()
  for (const k of hosts.keys()) {
    const ifname = uplinkName(k)
    // A ring that holds more frames than a pause could ever make wait.
    const ring = { 'ring-kb': 262_144 }
    await sw.addPort({ type: 'raw-socket', id: `p${k}`, ifname, netns: uplink, ...ring, ...more })
  }
  return [sw, hosts, uplink]
}

test.each([[{}], [{ queues: 2 }], [{ vnet_hdr: false }]])(
  'H5, H7, H16: with %o frames of two directions are there once and in order, and all of them counted',
  async (more) => {
    await using lab = new Lab()
    let [sw, hosts] = await uplinks(lab, more)
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
    const count = 6000
    let isOver = false
    let moves = 0
    const got = exchange(lab, hosts, count, async () => {
      await until('frames pass', () => sw.port('p1').counters.rx_frames > 100)
      while (!isOver && moves < 12) {
        if (moves++ % 3 === 0) {
          await sw.handOver()
          await sw.takeBack()
        } else {
          const next = make(true)
          await moveSwitch(sw, next)
          sw = next
        }
      }
    })
    const [there, back] = await got.finally(() => (isOver = true))
    expect(there).toEqual(numbers(0, count))
    expect(back).toEqual(numbers(0, count))
    expect(moves).toBeGreaterThan(2)
    await sw.currentCounters()
    for (const { counters } of sw.ports()) {
      expect(counters.rx_frames).toBeGreaterThanOrEqual(count)
      expect(counters).toMatchObject({ rx_drop_kernel: 0, tx_drop_error: 0 })
    }
  },
)

test('the interface stays promiscuous, and is not any more when the last one closes', async () => {
  await using lab = new Lab()
  const [sw, , uplink] = await uplinks(lab, {})
  const promiscuity = (): number =>
    Number(/promiscuity (\d+)/.exec(sh('ip', '-n', uplink, '-d', 'link', 'show', 'u0'))![1])
  expect(promiscuity()).toBe(1)
  const next = make(true)
  await moveSwitch(sw, next)
  expect(promiscuity()).toBe(1)
  expect(next.port('p0')).toMatchObject({ state: 'open', ifname: 'u0', netns: uplink })
  await next.close()
  expect(promiscuity()).toBe(0)
})

test('H9: another socket, interface or ring is refused, and the source goes on', async () => {
  await using lab = new Lab()
  const [sw, hosts] = await uplinks(lab, {})
  expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
  const refused = async (
    message: RegExp,
    change: (handed: HandedSwitch) => HandedSwitch['ports'][0],
  ): Promise<void> => {
    const handed = received(await sw.handOver())
    const ports = [handed.ports[0], change(handed)]
    await expect(make(true).takeOver({ ...handed, ports })).rejects.toMatchObject({
      code: 'HAND_OVER',
      port: 'p1',
      message: expect.stringMatching(message) as string,
    })
    await sw.takeBack()
    expect(lab.ping(hosts[0], '10.0.0.2')).toBe(3)
  }
  const instead = (handed: HandedSwitch, fd: number): HandedSwitch['ports'][0] => {
    const [, port] = handed.ports
    shim.close(port.fds[0])
    return { ...port, fds: [fd, ...port.fds.slice(1)] }
  }
  await refused(/is not a packet socket/, (handed) => instead(handed, shim.socketUnix(1)))
  await refused(/is bound to interface 0|does not receive/, (handed) =>
    instead(handed, shim.socketPacket(-1)),
  )
  await refused(/is bound to interface \d+, not to \d+/, (handed) => {
    const other = handed.ports[0].fds[0]
    const { fds } = received({ ...handed, ports: [{ ...handed.ports[0], fds: [other] }] }).ports[0]
    return instead(handed, fds[0])
  })
  await refused(/has no ring of \d+ bytes/, ({ ports: [, port] }) => {
    const state = port.state as { geometry: object }
    return { ...port, state: { ...state, geometry: { ...state.geometry, blocks: 2 } } }
  })
})

test('a port whose interface is gone is handed over as that, and goes on when it is back', async () => {
  await using lab = new Lab()
  const [sw, hosts, uplink] = await uplinks(lab, {})
  sh('ip', '-n', uplink, 'link', 'del', 'u0')
  await until('it is lost', () => sw.port('p0').state === 'failed')
  const next = make(true)
  await moveSwitch(sw, next)
  expect(next.port('p0')).toMatchObject({
    state: 'failed',
    error: expect.stringContaining('was deleted') as string,
  })
  sh(
    'ip',
    '-n',
    uplink,
    'link',
    'add',
    'u0',
    'type',
    'veth',
    'peer',
    'name',
    'x1',
    'netns',
    hosts[1],
  )
  setLink(uplink, 'u0', 'up')
  await until('it is open again', () => next.port('p0').state !== 'failed')
})
