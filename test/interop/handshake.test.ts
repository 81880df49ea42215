/**
 * The handshakes of both front-ends, against the transcripts that are kept: what they send in which
 * order, and what they are answered. `FRAMEPUMP_RECORD=1` records anew.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Lab, ROOT } from '../support/lab.ts'
import type { TranscriptEntry } from '../support/message-proxy.ts'
import { MessageProxy } from '../support/message-proxy.ts'
import { until } from '../support/processes.ts'
import { bootGuest } from '../support/qemu.ts'
import { HugePages } from '../support/huge-pages.ts'
import { startTestpmd, TESTPMD_PAGES } from '../support/testpmd.ts'

const FIXTURES = join(ROOT, 'test/fixtures/vhost-user')

/** Order and answers of a transcript; addresses and the like differ from run to run. */
function shapeOf(transcript: readonly TranscriptEntry[]): unknown[] {
  return transcript.map(({ from, request, flags, payload, fds }) =>
    from === 'back-end' ? [request, flags, payload.length / 2] : [request, fds, payload.length / 2],
  )
}

async function expectTranscript(
  name: string,
  start: (lab: Lab, socket: string) => Promise<unknown>,
): Promise<void> {
  await using lab = new Lab()
  const backEnd = join(lab.directory, 'back-end.sock')
  const daemon = await lab.daemon('--port', `vhost-user,id=g0,path=${backEnd}`)
  const socket = join(lab.directory, 'proxy.sock')
  const proxy = new MessageProxy(socket, backEnd)
  try {
    await start(lab, socket)
    await until('the guest runs', async () => (await daemon.port('g0'))['state'] === 'connected')
    // Until the last ring has been enabled: what comes later is no handshake.
    const file = join(FIXTURES, `${name}.json`)
    const isRecorded = process.env['FRAMEPUMP_RECORD'] === '1'
    const read = (): TranscriptEntry[] =>
      JSON.parse(readFileSync(file, 'utf8')) as TranscriptEntry[]
    const least = isRecorded ? 0 : read().length
    let length = -1
    await until('all has come, and nothing more comes', async () => {
      const isQuiet = proxy.transcript.length === length && length >= least
      length = proxy.transcript.length
      await new Promise((resolve) => setTimeout(resolve, 300))
      return isQuiet
    })
    if (isRecorded) {
      const lines = proxy.transcript.map((entry) => JSON.stringify(entry))
      writeFileSync(file, `[\n${lines.join(',\n')}\n]\n`)
    }
    expect(shapeOf(proxy.transcript)).toEqual(shapeOf(read()))
  } finally {
    proxy.close()
  }
}

test('QEMU with a Linux guest', () =>
  expectTranscript('qemu-7.2', (lab, socket) =>
    bootGuest(lab, { socket, mac: '52:54:00:00:00:11', address: '10.0.0.11/24' }),
  ))

test('DPDK virtio-user', async () => {
  const pages = new HugePages(TESTPMD_PAGES)
  try {
    await expectTranscript('virtio-user-22.11', (lab, socket) =>
      startTestpmd(lab, { devices: [`path=${socket},queues=1`] }),
    )
  } finally {
    pages.putBack()
  }
})
