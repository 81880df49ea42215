/**
 * H16: what this release says in a hand-over is of the same make as what was recorded of it. Whoever changes
 * that gives the section, or the state of the kind of port, another version, reads both, and records anew:
 *
 *     FRAMEPUMP_RECORD_STREAM=1 npx vitest run --config config/vitest.config.ts --project integration hand-over-stream
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { knownFeatures } from '../../../src/handover/features.ts'
import { ControlClient } from '../../../src/control/client.ts'
import { shim } from '../../../src/native/shim.ts'
import { pcapFile } from '../../support/capture-files.ts'
import { FrontEnd } from '../../support/front-end.ts'
import { igmpQuery, igmpReport } from '../../support/group-frames.ts'
import { Peer, Stand } from '../../support/hand-over-peer.ts'
import { Lab, ROOT, tapSpec } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { addHosts, rawSpec } from '../../support/raw-lab.ts'
import { differences, RECORDED, recordsOf, streamOf } from '../../support/recorded-stream.ts'
import { frame } from '../../support/sim.ts'

const { version: release } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  version: string
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** The stream of a daemon that has something of everything. */
async function stream(lab: Lab): Promise<Uint8Array> {
  const netns = [lab.netns(), lab.netns(), lab.netns()]
  const { uplink, hosts } = addHosts(lab, 1)
  const file = (name: string): string => join(lab.directory, name)
  writeFileSync(file('replay.pcap'), pcapFile([[frame(255, 1)]]))
  const specs = [
    tapSpec(1, netns[0], 'queues=2,vlan-mode=access,tag=7'),
    tapSpec(2, netns[1], 'queues=2'),
    tapSpec(3, netns[2]),
    rawSpec(0, uplink),
    `vhost-user,id=linked,path=${file('linked.sock')}`,
    `vhost-user,id=alone,path=${file('alone.sock')}`,
    `pcap,id=from,replay=${file('replay.pcap')}`,
    `pcap,id=into,record=${file('record.pcapng')}`,
  ].flatMap((spec) => ['--port', spec])
  writeFileSync(file('switch.yaml'), 'switch: { snooping: { igmp: true } }\n')
  const config = ['--config', file('switch.yaml')]
  const daemon = await lab.daemon(...config, ...specs, '--link', 'p2,linked')
  for (const [k, name] of [netns[0], netns[2], hosts[0]].entries()) {
    lab.address(name, `10.0.0.${k + 1}`)
  }
  await daemon.execute('mirror-add', {
    name: 'span',
    'select-src-port': ['p0'],
    'output-port': 'p3',
  })
  await daemon.execute('fdb-add', { mac: '02:00:00:00:00:09', vlan: 7, port: 'p1' })
  // A querier and a member.
  await lab.send(netns[0], [igmpQuery(), igmpReport('239.1.2.3', { from: 2 })].map(hexOf))
  await until('the group is known', async () => {
    const groups = await daemon.execute<unknown[]>('query-groups')
    return groups.length >= 2
  })
  await daemon.execute('capture-start', { ports: ['p1'], path: file('capture.pcapng') })
  const guest = FrontEnd.connect(file('linked.sock'))
  // One has a descriptor, and another one is in the midst of a request.
  const other = await ControlClient.connect(daemon.control)
  const client = connect(daemon.control)
  let heard = ''
  client.setEncoding('utf8').on('data', (text: string) => (heard += text))
  client.write('{"execute":"qmp_capabilities"}\r\n{"execute":"query-ver')
  const [null_, listening] = [shim.open('/dev/null', 0), shim.socketUnix(1)]
  try {
    await guest.start()
    await until(
      'the guest is there',
      async () => (await daemon.port('linked'))['state'] === 'connected',
    )
    await other.execute('getfd', { fdname: 'mine' }, null_)
    await until('it is negotiated', () => heard.includes('"return"'))
    shim.bindUnix(listening, file('target.sock'))
    shim.listen(listening, 1)
    const parameters = { 'backend-transfer': true, 'downtime-limit': 10_000 }
    await daemon.execute('migrate-set-parameters', parameters)
    await daemon.execute('migrate', { uri: `unix:${file('target.sock')}` })
    using stand = new Stand()
    using peer = await Peer.accept(listening)
    await peer.receiveUpTo('hello')
    const common = { protocol: 1, release, backendTransfer: true, exclude: [], ports: [] }
    const own = { ...common, features: knownFeatures(), pid: 1 }
    peer.send('hello', own, [stand.pidfd])
    // The preview, of which nothing is taken; and then the state.
    await peer.receiveUpTo('end-of-state')
    peer.send('prepared', {})
    await peer.receiveUpTo('end-of-state')
    return Buffer.concat(peer.heard)
  } finally {
    guest.close()
    client.destroy()
    other.close()
    for (const fd of [null_, listening]) shim.close(fd)
  }
}

test('H16: the stream of this release is of the make that was recorded', async () => {
  await using lab = new Lab()
  const said = await stream(lab)
  const records = recordsOf(said)
  if (process.env['FRAMEPUMP_RECORD_STREAM'] === '1') {
    mkdirSync(RECORDED, { recursive: true })
    writeFileSync(join(RECORDED, `${release}.stream`), said)
    writeFileSync(join(RECORDED, `${release}.json`), `${JSON.stringify(records, null, 2)}\n`)
  }
  const recorded = recordsOf(streamOf(release))
  const sections = (all: typeof records): string[] =>
    all.map(({ section, version }) => `${section} ${version}`)
  expect(sections(records)).toEqual(sections(recorded))
  expect(differences(recorded, records)).toEqual([])
})
