/** The kept handshakes of real front-ends: every message is answered as it was. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { FakeConnection } from '../../support/fake-device.ts'
import type { TranscriptEntry } from '../../support/message-proxy.ts'

const FIXTURES = join(import.meta.dirname, '../../fixtures/vhost-user')
const GET_FEATURES = 1

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

test.each(readdirSync(FIXTURES))('%s', async (name) => {
  const transcript = JSON.parse(readFileSync(join(FIXTURES, name), 'utf8')) as TranscriptEntry[]
  const features = transcript.find(
    ({ from, request }) => from === 'back-end' && request === GET_FEATURES,
  )!
  const offered = Buffer.from(features.payload, 'hex').readBigUInt64LE()
  const connection = new FakeConnection(offered, 1, 509)
  let nextFd = 100
  for (const [at, { from, request, flags, payload, fds }] of transcript.entries()) {
    if (from === 'back-end') continue
    const given = Array.from({ length: fds }, () => nextFd++)
    const bytes = new Uint8Array(Buffer.from(payload, 'hex'))
    const reply = await connection.handle(request, bytes, given, flags)
    const kept = transcript[at + 1]
    if (kept?.from === 'back-end') {
      expect(kept.request).toBe(request)
      expect(hex(reply!.subarray(12))).toBe(kept.payload)
      expect([...new Uint32Array(reply!.slice(0, 12).buffer)]).toEqual([
        request,
        5,
        reply!.length - 12,
      ])
    } else expect(reply).toBeNull()
  }
  expect([...connection.device.running.keys()]).toEqual([0, 1])
  await connection.session.close()
  expect(connection.closed.length + connection.device.fds.size).toBe(nextFd - 100)
})
