/** Calls in another namespace: what fails leaves the thread where it was and no descriptor open.
 *  Real namespaces and devices are in test/integration/any-tier/native-tun.test.ts. */
import { readlinkSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { EBADF, EINVAL, ENAMETOOLONG, ENOENT, ENOTTY } from '../../../src/abi/errno.ts'
import { IFF_NO_PI, IFF_TAP, IFNAMSIZ } from '../../../src/abi/if-tun.ts'
import { shim } from '../../../src/native/shim.ts'
import { isCloseOnExec, keepFd, memfd, openDescriptors, PAGE } from './windows.ts'

const CLOSED_FD = 1 << 20
const RTM_NEWLINK = 16
const RTM_GETLINK = 18
const NLM_F_REQUEST_DUMP = 0x301

const namespace = (): string => readlinkSync('/proc/thread-self/ns/net')

function tunOpen(netnsFd: number, path: string, name: string): readonly [number, number] {
  const stage = new Int32Array([-7])
  const nameOut = new Uint8Array(IFNAMSIZ)
  const result = shim.tunOpen(netnsFd, path, name, IFF_TAP | IFF_NO_PI, nameOut, stage)
  return [result, stage[0]]
}

describe('netlinkRoute', () => {
  test('opens a socket that answers a request for the links', () => {
    const fd = keepFd(shim.netlinkRoute(-1))
    expect(isCloseOnExec(fd)).toBe(true)
    // struct nlmsghdr (length, type, flags, sequence, port) and an empty struct ifinfomsg.
    const request = new DataView(new ArrayBuffer(32))
    request.setUint32(0, 32, true)
    request.setUint16(4, RTM_GETLINK, true)
    request.setUint16(6, NLM_F_REQUEST_DUMP, true)
    request.setUint32(8, 77, true)
    expect(shim.sendMsg(fd, new Uint8Array(request.buffer), 0, 32, null, 0, 0)).toBe(32)
    const answer = new Uint8Array(64 * 1024)
    const length = shim.recvMsg(fd, answer, new Int32Array(0), new Int32Array(2), 0)
    expect(length).toBeGreaterThan(32)
    const view = new DataView(answer.buffer)
    expect(view.getUint16(4, true)).toBe(RTM_NEWLINK)
    expect(view.getUint32(8, true)).toBe(77)
    expect(view.getUint32(12, true)).not.toBe(0)
  })

  test('a descriptor that is no namespace fails and leaves nothing open', () => {
    const file = memfd(PAGE)
    const here = namespace()
    const before = openDescriptors()
    expect(shim.netlinkRoute(CLOSED_FD)).toBe(-EBADF)
    expect(shim.netlinkRoute(file)).toBe(-EINVAL)
    expect(openDescriptors()).toBe(before)
    expect(namespace()).toBe(here)
  })
})

describe('netlinkJoin', () => {
  test('takes a group of rtnetlink, and nothing else', () => {
    const fd = keepFd(shim.netlinkRoute(-1))
    expect(shim.netlinkJoin(fd, 1)).toBe(0)
    expect(shim.netlinkJoin(fd, 1_000_000)).toBe(-EINVAL)
    expect(shim.netlinkJoin(CLOSED_FD, 1)).toBe(-EBADF)
  })
})

describe('tunOpen', () => {
  test('says at which stage it failed and leaves nothing open', () => {
    const file = memfd(PAGE)
    const here = namespace()
    const before = openDescriptors()
    expect(tunOpen(CLOSED_FD, '/dev/net/tun', 'x')).toEqual([-EBADF, 0])
    expect(tunOpen(file, '/dev/net/tun', 'x')).toEqual([-EINVAL, 0])
    expect(tunOpen(-1, '/dev/net/nothing', 'x')).toEqual([-ENOENT, 1])
    expect(tunOpen(-1, '/dev/null', 'x')).toEqual([-ENOTTY, 2])
    expect(openDescriptors()).toBe(before)
    expect(namespace()).toBe(here)
  })

  test('refuses a name that the kernel would cut and outputs that are too small', () => {
    const before = openDescriptors()
    const name = new Uint8Array(IFNAMSIZ)
    const stage = new Int32Array(1)
    const flags = IFF_TAP | IFF_NO_PI
    expect(shim.tunOpen(-1, '/dev/null', 'x'.repeat(16), flags, name, stage)).toBe(-ENAMETOOLONG)
    expect(shim.tunOpen(-1, '/dev/null', 'x'.repeat(15), flags, name, stage)).toBe(-ENOTTY)
    expect(shim.tunOpen(-1, '/dev/null', 'x', flags, name.subarray(1), stage)).toBe(-EINVAL)
    expect(shim.tunOpen(-1, '/dev/null', 'x', flags, name, new Int32Array(0))).toBe(-EINVAL)
    expect(name.every((byte) => byte === 0)).toBe(true)
    expect(openDescriptors()).toBe(before)
  })
})
