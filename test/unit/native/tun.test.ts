/** TUN/TAP ioctls on what is no TAP: -errno, nothing written. Real devices are in
 *  test/integration/any-tier/native-tun.test.ts. */
import { describe, expect, test } from 'vitest'
import { EBADF, EINVAL, ENOTTY } from '../../../src/abi/errno.ts'
import { IFF_DETACH_QUEUE, IFNAMSIZ, TUN_F_CSUM } from '../../../src/abi/if-tun.ts'
import { shim } from '../../../src/native/shim.ts'
import { GUARD, memfd, PAGE } from './windows.ts'

const CLOSED_FD = 1 << 20

const calls: Record<string, (fd: number) => number> = {
  tunGetFeatures: (fd) => shim.tunGetFeatures(fd),
  tunGetIff: (fd) => shim.tunGetIff(fd, new Uint8Array(IFNAMSIZ)),
  tunSetOffload: (fd) => shim.tunSetOffload(fd, TUN_F_CSUM),
  tunGetVnetHdrSize: (fd) => shim.tunGetVnetHdrSize(fd),
  tunSetVnetHdrSize: (fd) => shim.tunSetVnetHdrSize(fd, 12),
  tunGetSndbuf: (fd) => shim.tunGetSndbuf(fd),
  tunSetSndbuf: (fd) => shim.tunSetSndbuf(fd, 1000),
  tunSetQueue: (fd) => shim.tunSetQueue(fd, IFF_DETACH_QUEUE),
  tunSetPersist: (fd) => shim.tunSetPersist(fd, 1),
  tunSetOwner: (fd) => shim.tunSetOwner(fd, 0),
  tunSetGroup: (fd) => shim.tunSetGroup(fd, 0),
  tunSetCarrier: (fd) => shim.tunSetCarrier(fd, 1),
  tunGetDevNetns: (fd) => shim.tunGetDevNetns(fd),
}

describe('the TUN ioctls', () => {
  test.each(Object.entries(calls))('%s answers -errno for another descriptor', (_, call) => {
    expect(call(-1)).toBe(-EBADF)
    expect(call(CLOSED_FD)).toBe(-EBADF)
    expect(call(memfd(PAGE))).toBe(-ENOTTY)
  })

  test('tunGetIff needs room for a name and writes none when it fails', () => {
    const fd = memfd(PAGE)
    const name = new Uint8Array(IFNAMSIZ).fill(GUARD)
    expect(shim.tunGetIff(fd, name.subarray(1))).toBe(-EINVAL)
    expect(shim.tunGetIff(fd, name)).toBe(-ENOTTY)
    expect(name.every((byte) => byte === GUARD)).toBe(true)
  })
})
