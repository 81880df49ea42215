/** Windows as a thread sees them. What the shim checks is in test/unit/native/window.test.ts. */
import { describe, expect, test } from 'vitest'
import { SysError } from '../../../src/errors.ts'
import { Window, windowAddresses } from '../../../src/mem/window.ts'

describe('Window', () => {
  test('maps zeroed memory, whose address is known to entries for the kernel', () => {
    const window = Window.map(8192)
    expect(new Uint8Array(window.buffer).every((byte) => byte === 0)).toBe(true)
    expect(window.buffer.byteLength).toBe(8192)
    expect(window.address).toBe(windowAddresses[window.id])
    expect(window.address % 4096).toBe(0)
    expect(Number.isSafeInteger(window.address)).toBe(true)
    window.unmap()
  })

  test('detached, it has no bytes; a second time changes nothing', () => {
    const window = Window.map(4096)
    window.detach()
    expect(window.buffer.byteLength).toBe(0)
    window.detach()
    window.unmap()
  })

  test('two windows have numbers and memory of their own', () => {
    const [first, second] = [Window.map(4096), Window.map(4096)]
    expect(second.id).not.toBe(first.id)
    new Uint8Array(first.buffer).fill(1)
    expect(new Uint8Array(second.buffer).every((byte) => byte === 0)).toBe(true)
    first.unmap()
    expect(second.buffer.byteLength).toBe(4096)
    second.unmap()
  })

  test.each([
    ['what cannot be mapped', () => Window.map(0)],
    ['a file that is not there', () => Window.map(4096, { fd: 1 << 20 })],
    ['a window that nobody mapped', () => Window.view(4095)],
  ])('%s is an error with its number', (_, action) => {
    let error: unknown
    try {
      action()
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(SysError)
    expect(error).toMatchObject({ code: 'OUT_OF_MEMORY' })
    expect((error as SysError).errno).toBeGreaterThan(0)
  })
})
