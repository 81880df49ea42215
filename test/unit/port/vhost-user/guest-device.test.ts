/** What the device of a front-end has mapped, when the engine cannot take it. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { StateError } from '../../../../src/errors.ts'
import { shim } from '../../../../src/native/shim.ts'
import type { VirtioCall } from '../../../../src/port/virtio/messages.ts'
import { GuestDevice } from '../../../../src/port/vhost-user/guest-device.ts'
import { MemoryPace } from '../../../../src/port/vhost-user/memory-pace.ts'
import { WindowBudget } from '../../../../src/port/vhost-user/window-shares.ts'
import type { MemoryRegion } from '../../../../src/vhost-user/device.ts'

const LENGTH = 2 ** 20

function memfd(): number {
  const fd = shim.memfdCreate('framepump-test-device', 1)
  expect(shim.ftruncate(fd, LENGTH)).toBe(0)
  return fd
}

const openWindows = (): number =>
  readFileSync('/proc/self/maps', 'utf8').split('framepump-test-device').length - 1

function region(guestAddress: number): MemoryRegion {
  return { fd: memfd(), size: LENGTH, mmapOffset: 0, guestAddress, userAddress: guestAddress }
}

/** A device that owns its port, of which the engine refuses what `refused` says. */
async function makeDevice(): Promise<{
  device: GuestDevice
  windows: WindowBudget
  refused: Set<VirtioCall['do']>
}> {
  const refused = new Set<VirtioCall['do']>()
  const windows = new WindowBudget()
  const device = new GuestDevice({
    windows,
    pace: new MemoryPace(),
    fileRoom: { take: () => true, giveBack: () => undefined },
    call: (call) =>
      refused.has(call.do)
        ? Promise.reject(new StateError('ENGINE', `engine: no ${call.do}`))
        : Promise.resolve(true),
    claim: () => Promise.resolve(),
    changed: () => Promise.resolve(),
    sendRarp: () => Promise.resolve(),
    canTakeMtu: () => true,
  })
  await device.attach()
  return { device, windows, refused }
}

describe.each(['memory', 'log'] as const)('%s that the engine refuses', (what) => {
  test.each(['first', 'later'])('the %s time, is unmapped with the device', async (when) => {
    const before = openWindows()
    const { device, windows, refused } = await makeDevice()
    const give = (at: number): Promise<void> =>
      what === 'memory'
        ? device.setMemory([region(at)])
        : device.setLog({ fd: memfd(), size: 4096, offset: 0 })
    if (when === 'later') await give(LENGTH)
    refused.add(what)
    await expect(give(2 * LENGTH)).rejects.toThrow(`no ${what}`)
    refused.clear()
    await device.close()
    expect(openWindows()).toBe(before)
    let left = 0
    while (left < windows.most && windows.take()) left++
    windows.giveBack(left)
    expect(left).toBe(windows.most)
  })
})
