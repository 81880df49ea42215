/** Tables of the size that the limits allow are shown whole, while the switch goes on. */
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../../support/lab.ts'
import { CLI, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'

const ADDRESSES = 120_000

/** A pcap file of frames from that many addresses. */
function pcapOf(addresses: number): Uint8Array {
  const bytes = Buffer.alloc(24 + addresses * (16 + 60))
  bytes.writeUInt32LE(0xa1b2c3d4, 0)
  bytes.writeUInt16LE(2, 4)
  bytes.writeUInt16LE(4, 6)
  bytes.writeUInt32LE(65535, 16)
  bytes.writeUInt32LE(1, 20)
  for (let k = 0; k < addresses; k++) {
    const at = 24 + k * (16 + 60)
    bytes.writeUInt32LE(1, at)
    bytes.writeUInt32LE(60, at + 8)
    bytes.writeUInt32LE(60, at + 12)
    bytes.set([2, 255, 255, 255, 255, 254, 6, 0], at + 16)
    bytes.writeUInt32BE(k, at + 24)
    bytes.writeUInt16BE(0x88b5, at + 28)
  }
  return bytes
}

const show = (daemon: Daemon, ...args: string[]): string =>
  sh(process.execPath, CLI, 'show', ...args, '--control', daemon.control)

test('a table of 120,000 addresses', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const config = join(lab.directory, 'config.yaml')
  const replay = join(lab.directory, 'a.pcap')
  writeFileSync(replay, pcapOf(ADDRESSES))
  writeFileSync(
    config,
    `switch: { mac-table-size: 524288 }
ports: [{ id: sink, type: pcap, record: ${join(lab.directory, 'out.pcap')} }]`,
  )
  const daemon = await lab.daemon('--config', config)
  await daemon.execute('netdev_add', { type: 'pcap', id: 'a', replay, pace: 'full' })
  await until(
    'all frames are there',
    async () => (await daemon.stats('a'))['rx_frames'] === ADDRESSES,
    60_000,
  )
  const lines = show(daemon, 'macs').trimEnd().split('\n')
  expect(lines.length).toBe(ADDRESSES + 1)
  expect(new Set(lines.map((line) => line.split(' ')[0])).size).toBe(ADDRESSES + 1)
  expect((JSON.parse(show(daemon, 'macs', '--json')) as unknown[]).length).toBe(ADDRESSES)
  // A client that asks and does not read costs the daemon no more than a page; others are served.
  const deaf = connect(daemon.control)
  deaf.on('error', () => undefined).pause()
  deaf.write('{"execute":"qmp_capabilities"}{"execute":"query-mac-table"}')
  expect(await daemon.execute('query-status')).toMatchObject({ running: true })
  expect((await daemon.execute<unknown[]>('query-mac-table')).length).toBe(ADDRESSES)
  // It has its answer when it reads, and the events of that time behind it.
  await daemon.execute('netdev_del', { id: 'a' })
  let text = ''
  deaf.setEncoding('utf8').on('data', (data: string) => (text += data))
  deaf.resume()
  await until('it has everything', () => text.includes('PORT_REMOVED'))
  const [, , answer, event] = text.split('\r\n')
  expect((JSON.parse(answer) as { return: unknown[] }).return.length).toBeGreaterThan(0)
  expect(JSON.parse(event)).toMatchObject({ event: 'PORT_REMOVED' })
  deaf.destroy()
})

test('the offloads between 140 ports', { timeout: 120_000 }, async () => {
  await using lab = new Lab()
  const ports = Array.from(
    { length: 140 },
    (_, k) => `vhost-user,id=port-${k},path=${join(lab.directory, `${k}.sock`)}`,
  )
  const daemon = await lab.daemon(...ports.flatMap((spec) => ['--port', spec]))
  const pairs = 140 * 139
  expect(show(daemon, 'offloads').trimEnd().split('\n').length).toBe(pairs + 1)
  expect((JSON.parse(show(daemon, 'offloads', '--json')) as unknown[]).length).toBe(pairs)
  expect((await daemon.execute<unknown[]>('query-offloads')).length).toBe(pairs)
  const own = await daemon.execute<unknown[]>('query-offloads', { from: 'port-7' })
  expect(own.length).toBe(139)
  expect(show(daemon, 'ports').trimEnd().split('\n').length).toBe(141)
})
