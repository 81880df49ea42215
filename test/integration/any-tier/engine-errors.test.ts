/** What goes wrong in the engine thread comes back as the error that it was. */
import { fileURLToPath, pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import type * as ClientModule from '../../../src/engine/client.ts'
import { NO_POLICY } from '../../support/policies.ts'
import { NO_SNOOPING } from '../../../src/engine/messages.ts'

const CLIENT = fileURLToPath(new URL('../../../build/engine/client.js', import.meta.url))
const EBADF = 9

test('a window that cannot be viewed is told with code, call and errno', async () => {
  const { EngineClient } = (await import(pathToFileURL(CLIENT).href)) as typeof ClientModule
  const settings = { usesAio: false, pace: 'adaptive', macAgingS: 300, macTableSize: 64 } as const
  const never = (): never => {
    throw new Error('nothing else happens')
  }
  const engine = new EngineClient(
    { io: 'read-write', groups: 0xffff, snooping: NO_SNOOPING, ...settings },
    {
      portFailed: never,
      queueBroken: never,
      driverCalled: never,
      loops: never,
      storms: never,
      guardDrops: never,
      failed: never,
    },
  )
  try {
    const place = { port: 0, mtu: 0, txOffloads: 0, isHeld: false, policy: NO_POLICY, macs: [] }
    const index = new SharedArrayBuffer(1024)
    const shared = { control: index, counts: index }
    const options = { format: 'pcapng', direction: 'both', snapLength: 100, countLimit: 0 } as const
    // There is no such window.
    const ring = { window: 30_000, length: 4096, ...shared, ...options }
    const description = { kind: 'record', ring, block: new Uint8Array(0) } as const
    await expect(engine.request({ op: 'add-port', description, ...place })).rejects.toMatchObject({
      name: 'SysError',
      code: 'OUT_OF_MEMORY',
      errno: EBADF,
    })
  } finally {
    await engine.close()
  }
})
