/** A real guest and a switch that is to take over: it connects while its TAP is still postponed. */
import { createHash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Lab, tapSpec } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { startGuest } from '../support/qemu.ts'
import { makeTap, tunDescriptors, tunState } from '../support/tun.ts'

/** CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN: QEMU 7.2 does not know HOST_USO. */
const KNOWN_MASK = [0n, 11n, 12n, 13n].reduce((mask, bit) => mask | (1n << bit), 0n)
const LENGTH = 8_000_000
const [HOST, GUEST] = ['10.0.0.1', '10.0.0.11']

test('F4, D6: it gets the full features, boots, and has traffic after the signal and cont', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  makeTap(netns, 2)
  const socket = join(lab.directory, 'guest.sock')
  const daemon = await lab.incoming(
    lab.controlPath(),
    join(lab.directory, 'trace'),
    '--port',
    tapSpec(0, netns, 'queues=2,persist=on,script=no,downscript=no'),
    '--port',
    `vhost-user,id=g0,path=${socket},queues=2`,
    '--link',
    'p0,g0',
  )
  const mac = '52:54:00:00:00:0b'
  const guest = startGuest(lab, { socket, mac, address: `${GUEST}/24`, queues: 2 })
  await guest.booted()
  expect(await daemon.port('g0')).toMatchObject({ state: 'connected' })
  expect(await daemon.port('p0')).toMatchObject({ state: 'postponed' })
  expect(tunDescriptors(daemon.process.child.pid!)).toEqual([])
  // Bit 0 is the first character.
  const bits = (await guest.output('cat /sys/class/net/eth0/device/features')).trim()
  const features = bits
    .split('')
    .reduce((sum, bit, at) => (bit === '1' ? sum | (1n << BigInt(at)) : sum), 0n)
  expect(features & KNOWN_MASK).toBe(KNOWN_MASK)

  await daemon.execute('migrate-incoming')
  expect(tunState(netns)).toMatchObject({ held: 2 })
  expect(await daemon.port('g0')).toMatchObject({ state: 'connected' })
  lab.address(netns, HOST)
  expect(await daemon.stats('g0')).toMatchObject({ rx_frames: 0, tx_frames: 0 })
  await daemon.execute('cont')
  await until('the guest answers', () => lab.ping(netns, GUEST, 1) === 1)
  expect(await guest.ping(HOST)).toBe(3)

  const data = randomBytes(LENGTH)
  writeFileSync(join(lab.directory, 'data'), data)
  lab.start(netns, 'busybox', 'httpd', '-f', '-p', '80', '-h', lab.directory)
  await until('the server listens', () =>
    lab.exec(netns, 'ss', '-Hltn', 'sport = :80').includes(':80'),
  )
  const digest = await guest.output(`wget -q -O - http://${HOST}/data | md5sum`)
  expect(digest.slice(0, 32)).toBe(createHash('md5').update(data).digest('hex'))
  await guest.output('mkdir -p /www && head -c 4000000 /dev/urandom >/www/data && httpd -h /www')
  const own = await guest.output('md5sum </www/data')
  const command = `busybox wget -q -O - http://${GUEST}/data | md5sum`
  expect(lab.exec(netns, 'sh', '-c', command)).toBe(own)
  for (const id of ['p0', 'g0']) {
    expect(await daemon.stats(id)).toMatchObject({ rx_drop_malformed: 0, tx_drop_offload: 0 })
  }
})

test('F4: a guest that acked what its TAP then lacks is served in software', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const socket = join(lab.directory, 'guest.sock')
  const daemon = await lab.incoming(
    lab.controlPath(),
    join(lab.directory, 'trace'),
    '--port',
    tapSpec(0, netns, 'vnet_hdr=off,script=no,downscript=no'),
    '--port',
    `vhost-user,id=g0,path=${socket}`,
    '--link',
    'p0,g0',
  )
  const mac = '52:54:00:00:00:0b'
  const options = { socket, mac, address: `${GUEST}/24` }
  const guest = startGuest(lab, options)
  await guest.booted()
  await daemon.execute('migrate-incoming')
  await daemon.execute('cont')
  lab.address(netns, HOST)
  await until('the guest answers', () => lab.ping(netns, GUEST, 1) === 1)
  expect(await daemon.port('g0')).toMatchObject({ state: 'connected' })
  expect(await daemon.stats('p0')).toMatchObject({ tx_drop_offload: 0 })
})
