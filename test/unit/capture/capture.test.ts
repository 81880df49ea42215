/** A capture before it begins. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CaptureSession } from '../../../src/capture/capture.ts'
import { INTERFACES_MAX } from '../../../src/capture/ring.ts'

test('has so many ports at most, and a description that went nowhere is none', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'framepump-capture-'))
  const options = { to: { path: join(directory, 'x.pcapng') } }
  const session = new CaptureSession(1, options, () => Promise.resolve())
  for (let id = 0; id < INTERFACES_MAX; id++) expect(session.describe('p', 'a port').id).toBe(id)
  const refusal = expect.objectContaining({ code: 'CAPTURE_INTERFACES' }) as Error
  expect(() => session.describe('p', 'a port')).toThrow(refusal)
  session.undescribe(INTERFACES_MAX - 1)
  expect(session.describe('p', 'a port').id).toBe(INTERFACES_MAX - 1)
  await session.end()
  rmSync(directory, { recursive: true })
})
