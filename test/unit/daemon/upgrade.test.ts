/** How a successor is to be started by somebody else than the daemon. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { UpgradeContext } from '../../../src/daemon/upgrade.ts'
import { upgrade } from '../../../src/daemon/upgrade.ts'
import { DEFAULT_PARAMETERS } from '../../../src/handover/progress.ts'

async function start(controlPath: string, ...options: string[]): Promise<Record<string, unknown>> {
  const context = {
    migration: { parameters: { ...DEFAULT_PARAMETERS, exclude: ['set'] } },
    privileges: { areWhole: false },
    notify: undefined,
    release: '1.0.0',
    controlPath,
    log: () => undefined,
  } as unknown as UpgradeContext
  return (await upgrade(context, options))['start'] as Record<string, unknown>
}

test('a control path is told as a whole: whoever starts it may be in another directory', async () => {
  const path = join(process.cwd(), 'lab/c.sock.upgrade')
  const found = await start('lab/c.sock')
  expect(found).toMatchObject({ path, backendTransfer: true, exclude: ['set'] })
  expect(found['arguments']).toContain(`unix:${path}`)
})

test.each([
  [['--exclude', 'a,b'], { backendTransfer: true, exclude: ['a', 'b'] }],
  [['--exclude=a', '--exclude=b'], { backendTransfer: true, exclude: ['b'] }],
  [['--backend-transfer=off'], { backendTransfer: false, exclude: ['set'] }],
  [['--io', 'auto', '--backend-transfer', 'on'], { backendTransfer: true, exclude: ['set'] }],
])('H3: the source agrees with the options %j of its successor', async (options, transfer) => {
  const found = await start('/run/c.sock', ...options)
  expect(found).toMatchObject(transfer)
  expect((found['arguments'] as string[]).slice(-options.length)).toEqual(options)
})
