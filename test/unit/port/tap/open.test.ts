/** The open sequence and its exact error texts, on a made-up kernel. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import {
  EBADF,
  EBUSY,
  EINTR,
  EINVAL,
  ENODEV,
  ENOENT,
  ENOTTY,
  EPERM,
  EACCES,
} from '../../../../src/abi/errno.ts'
import { ConfigError, SysError } from '../../../../src/errors.ts'
import { shim as realShim } from '../../../../src/native/shim.ts'
import type { TapOptions } from '../../../../src/port/options.ts'
import { NO_OFFLOADS } from '../../../../src/port/tap/offloads.ts'
import { openTap } from '../../../../src/port/tap/open.ts'
import type { OpenTap } from '../../../../src/port/tap/open-tap.ts'
import { FakeKernel } from './fake-kernel.ts'

// linux/if_tun.h
const TAP_NO_PI = 0x1002
const MULTI_QUEUE = 0x0100
const ONE_QUEUE = 0x2000
const VNET_HDR = 0x4000
const NODE = '/dev/net/tun'
const INT_MAX = 0x7fff_ffff
const E2BIG = 7
/** Stages of tunOpen. */
const [SETNS, OPEN, SETIFF] = [0, 1, 2]

type Wish = Partial<Omit<TapOptions, 'id' | 'type'>>

let kernel: FakeKernel
let logged: string[]
let directory: string

beforeEach(() => {
  kernel = new FakeKernel()
  logged = []
  directory = mkdtempSync(join(tmpdir(), 'framepump-open-'))
})

afterEach(() => {
  vi.useRealTimers()
  rmSync(directory, { recursive: true })
})

/** Those that no test has closed: their descriptors are known by number. */
const taps: OpenTap[] = []
afterEach(async () => {
  for (const tap of taps.splice(0)) await tap.close()
})

async function open(wish: Wish = {}, given: Record<string, number> = {}): Promise<OpenTap> {
  const tap = await openTap(
    { type: 'tap', id: 'a', ...wish },
    {
      shim: kernel.shim,
      given: new Map(Object.entries(given)),
      log: (message) => logged.push(message),
    },
  )
  taps.push(tap)
  return tap
}

/** The error with which it ends; nothing that it opened may still be open then. */
async function failure(wish: Wish, given: Record<string, number> = {}): Promise<SysError> {
  const before = [...kernel.open]
  const error = await open(wish, given).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(Error)
  expect([...kernel.open]).toEqual(before)
  return error as SysError
}

/** A kernel whose tunOpen fails at a stage. */
function failingAt(stage: number, errno: number): FakeKernel {
  return new FakeKernel({
    tunOpen: (_netns, _path, _name, _flags, _nameOut, stageOut) => {
      stageOut[0] = stage
      return -errno
    },
  })
}

function script(name: string, body: string): string {
  const path = join(directory, name)
  writeFileSync(path, `#!/bin/sh\n${body}\n`)
  chmodSync(path, 0o755)
  return path
}

describe('by name', () => {
  test('a header that is no vnet_hdr is refused, and nothing stays open', async () => {
    kernel = new FakeKernel({ tunGetVnetHdrSize: () => 8 })
    await expect(open({ ifname: 'x0' })).rejects.toMatchObject({
      code: 'TAP_VNET_HDR_SIZE',
      message: expect.stringContaining('vnet_hdr of 8 bytes on x0') as string,
    })
    expect(kernel.open.size).toBe(0)
  })

  test('asks for what the kernel offers, then sets the device up', async () => {
    const tap = await open({ ifname: 'x0' })
    expect(kernel.calls).toEqual([
      // Is it a macvtap? There is no link of that name yet.
      'netlinkRoute -1',
      expect.stringMatching(/^sendMsg 100 /),
      expect.stringMatching(/^recvMsg 100 /),
      'close 100',
      expect.stringMatching(/^open \/dev\/net\/tun /),
      'tunGetFeatures 101',
      'close 101',
      `tunOpen -1 ${NODE} x0 ${TAP_NO_PI | ONE_QUEUE | VNET_HDR}`,
      'tunGetIff 102',
      // Probed, and all off again.
      'tunSetOffload 102 17',
      'tunSetOffload 102 97',
      'tunSetOffload 102 387',
      'tunSetOffload 102 0',
      'tunSetVnetHdrSize 102 24',
      'tunGetVnetHdrSize 102',
      `tunSetSndbuf 102 ${INT_MAX}`,
      // Is it persistent already? Then where it is.
      'tunGetIff 102',
      'tunGetIff 102',
      'tunGetDevNetns 102',
    ])
    expect(tap).toMatchObject({ fds: [102], vnetHdrLength: 24 })
    expect(tap.probed).toEqual({ hasUfo: true, hasUso: true, hasTunnel: true })
    expect(tap.identify()).toEqual({ ifname: 'x0', netns: undefined })
    expect([...kernel.open]).toEqual([102])
    expect(logged).toEqual([])
    await tap.close()
    expect([...kernel.open]).toEqual([])
  })

  test.each([{}, { ifname: '' }])('without a name (%o) the kernel chooses one', async (wish) => {
    kernel.number = 3
    const tap = await open(wish)
    expect(kernel.callsOf('tunOpen')).toEqual([expect.stringContaining(' tap%d ')])
    // A pattern is no link to look for.
    expect(kernel.callsOf('netlinkRoute')).toEqual([])
    expect(tap.identify().ifname).toBe('tap3')
  })

  test('further queues belong to the device that the first one named', async () => {
    kernel.number = 5
    const tap = await open({ ifname: 'fp%d', queues: 3 })
    const flags = TAP_NO_PI | ONE_QUEUE | VNET_HDR | MULTI_QUEUE
    expect(kernel.callsOf('tunOpen')).toEqual(
      ['fp%d', 'fp5', 'fp5'].map((name) => `tunOpen -1 ${NODE} ${name} ${flags}`),
    )
    expect(tap.fds).toHaveLength(3)
    // Per device, asked once; sndbuf is tried on each.
    expect(kernel.callsOf('tunSetVnetHdrSize')).toHaveLength(1)
    expect(kernel.callsOf('tunSetSndbuf')).toHaveLength(3)
    await tap.close()
    expect([...kernel.open]).toEqual([])
  })

  test('a queue that fails closes those before it', async () => {
    let queue = 0
    kernel = new FakeKernel({
      tunOpen: (_netns, _path, name, _flags, nameOut, stageOut) => {
        stageOut[0] = SETIFF
        return queue++ < 2 ? kernel.attach(name, nameOut) : -E2BIG
      },
    })
    const error = await failure({ ifname: 'x0', queues: 3 })
    expect(error.message).toBe(`could not configure ${NODE} (x0): Argument list too long`)
  })

  test('a name of 15 bytes is taken, one of 16 refused: the kernel would cut it', async () => {
    await open({ ifname: 'abcdefghijklmno' })
    const error = await failure({ ifname: 'abcdefghijklmnop' })
    expect(error).toBeInstanceOf(ConfigError)
    expect(error).toMatchObject({
      code: 'BAD_OPTION',
      message: 'ifname "abcdefghijklmnop" is 16 bytes long, the kernel takes 15',
    })
    // Bytes, not letters.
    expect((await failure({ ifname: 'ääääääää' })).message).toContain('is 16 bytes long')
    expect(kernel.callsOf('tunOpen')).toHaveLength(1)
  })

  test('a namespace is opened once, given to every call that looks names up, and closed', async () => {
    const tap = await open({ ifname: 'x0', netns: '/some/where', up: true })
    expect(kernel.callsOf('open')[0]).toMatch(/^open \/some\/where /)
    expect(kernel.callsOf('netlinkRoute')).toEqual(['netlinkRoute 100', 'netlinkRoute 100'])
    expect(kernel.callsOf('tunOpen')).toEqual([expect.stringMatching(/^tunOpen 100 /)])
    expect([...kernel.open]).toEqual([...tap.fds])
  })
})

describe('vnet_hdr and queues', () => {
  const withoutVnetHdr = ONE_QUEUE | MULTI_QUEUE

  test('off is not asked for, nor is anything of it set', async () => {
    const tap = await open({ ifname: 'x0', vnet_hdr: false })
    expect(kernel.callsOf('tunOpen')).toEqual([`tunOpen -1 ${NODE} x0 ${TAP_NO_PI | ONE_QUEUE}`])
    expect(kernel.callsOf('tunSetOffload', 'tunSetVnetHdrSize')).toEqual([])
    expect(tap).toMatchObject({ vnetHdrLength: 0, probed: NO_OFFLOADS })
    expect(tap.setOffloads(0x7f)).toBe(0)
    expect(kernel.callsOf('tunSetOffload')).toEqual([])
  })

  test('wanted by default, a kernel without it is good enough', async () => {
    kernel.features = withoutVnetHdr
    expect((await open({ ifname: 'x0' })).vnetHdrLength).toBe(0)
  })

  test('given as on, a kernel without it is an error', async () => {
    kernel.features = withoutVnetHdr
    expect(await failure({ ifname: 'x0', vnet_hdr: true })).toMatchObject({
      code: 'TAP_FEATURE',
      message: 'vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available',
    })
  })

  test('what TUNGETIFF reads back is believed, not what was asked for', async () => {
    kernel = new FakeKernel({
      tunGetIff: (_fd, nameOut) => {
        kernel.writeName(nameOut, 'x0')
        return TAP_NO_PI
      },
    })
    expect((await open({ ifname: 'x0' })).vnetHdrLength).toBe(0)
    expect(await failure({ ifname: 'x0', vnet_hdr: true })).toMatchObject({ code: 'TAP_FEATURE' })
  })

  test('several queues need IFF_MULTI_QUEUE', async () => {
    kernel.features = ONE_QUEUE | VNET_HDR
    expect(await failure({ ifname: 'x0', queues: 2 })).toMatchObject({
      code: 'TAP_FEATURE',
      message: 'multiqueue required, but no kernel support for IFF_MULTI_QUEUE available',
    })
    await open({ ifname: 'x0', queues: 1 })
  })

  test('a kernel that does not tell its features is logged, and asked for the least', async () => {
    kernel = new FakeKernel({ tunGetFeatures: () => -ENOTTY })
    await open({ ifname: 'x0' })
    expect(logged).toEqual(['TUNGETFEATURES failed: Inappropriate ioctl for device'])
    expect(kernel.callsOf('tunOpen')).toEqual([`tunOpen -1 ${NODE} x0 ${TAP_NO_PI}`])
  })

  test('a header size that cannot be set is logged; the one in force is used', async () => {
    kernel = new FakeKernel({ tunSetVnetHdrSize: () => -EINVAL })
    const tap = await open({ ifname: 'x0' })
    expect(logged).toEqual(['TUNSETVNETHDRSZ ioctl() failed: Invalid argument.'])
    expect(tap.vnetHdrLength).toBe(10)
  })

  test('offloads that are refused are logged, and none are in force', async () => {
    kernel = new FakeKernel({ tunSetOffload: (_fd, bits) => (bits === 0 ? 0 : -EINVAL) })
    const tap = await open({ ifname: 'x0' })
    expect(tap).toMatchObject({ probed: NO_OFFLOADS, vnetHdrLength: 12 })
    expect(tap.setOffloads(0x03)).toBe(0)
    expect(logged).toEqual(['TUNSETOFFLOAD ioctl() failed: Invalid argument'])
  })
})

describe('errors of the node and of TUNSETIFF', () => {
  test.each([
    [ENOENT, 'No such file or directory', 'load the tun module (modprobe tun)'],
    [EACCES, 'Permission denied', 'give this user access to it'],
    [EPERM, 'Operation not permitted', 'give this user access to it'],
    [ENODEV, 'No such device', undefined],
  ])('a node that cannot be opened: errno %i', async (errno, text, hint) => {
    kernel = new FakeKernel({ open: () => -errno })
    const error = await failure({ ifname: 'x0' })
    expect(error).toMatchObject({
      code: 'TAP_NODE',
      message: `Could not open '/dev/net/tun': ${text}`,
      syscall: 'open',
      errno,
      path: NODE,
      hint: hint === undefined ? undefined : expect.stringContaining(hint),
    })
    // The same when the node went away between its two uses.
    kernel = failingAt(OPEN, errno)
    expect((await failure({ ifname: 'x0' })).message).toBe(error.message)
  })

  test.each([
    [
      EPERM,
      'Operation not permitted',
      'needs CAP_NET_ADMIN, or a persistent TAP owned by this user',
    ],
    [EACCES, 'Permission denied', 'needs CAP_NET_ADMIN, or a persistent TAP owned by this user'],
    [EINVAL, 'Invalid argument', 'x0 exists and is not a TAP, or has another queues= mode'],
    [E2BIG, 'Argument list too long', undefined],
  ])('TUNSETIFF fails with errno %i', async (errno, text, hint) => {
    kernel = failingAt(SETIFF, errno)
    expect(await failure({ ifname: 'x0' })).toMatchObject({
      code: 'TAP_SETIFF',
      message: `could not configure /dev/net/tun (x0): ${text}`,
      syscall: 'ioctl',
      errno,
      ifname: 'x0',
      hint,
    })
  })

  test.each([{}, { ifname: '' }])('without a name (%o) the text has none', async (wish) => {
    kernel = failingAt(SETIFF, EPERM)
    expect((await failure(wish)).message).toBe(
      'could not configure /dev/net/tun: Operation not permitted',
    )
  })

  test('a namespace that cannot be entered is said to be that', async () => {
    kernel = failingAt(SETNS, EPERM)
    expect(await failure({ ifname: 'x0', netns: '/ns' })).toMatchObject({
      code: 'NETNS',
      message: 'setns /ns: Operation not permitted',
      hint: expect.stringContaining('CAP_SYS_ADMIN'),
    })
  })

  test('so it is when already the look for a macvtap cannot enter it', async () => {
    const refused = failingAt(SETNS, EPERM)
    kernel = new FakeKernel({
      netlinkRoute: () => -EPERM,
      tunOpen: (...args) => refused.shim.tunOpen(...args),
    })
    expect(await failure({ ifname: 'x0', netns: '/ns' })).toMatchObject({
      code: 'NETNS',
      message: 'setns /ns: Operation not permitted',
    })
  })

  test('a TAP needs no netlink: where that is forbidden, it opens all the same', async () => {
    kernel = new FakeKernel({ netlinkRoute: () => -EPERM })
    expect((await open({ ifname: 'x0' })).identify().ifname).toBe('x0')
  })

  test('a namespace that is not there fails before anything is opened', async () => {
    kernel = new FakeKernel({ open: () => -ENOENT })
    expect(await failure({ ifname: 'x0', netns: 'nowhere' })).toMatchObject({
      code: 'NETNS',
      message: 'no network namespace "nowhere": No such file or directory',
    })
    expect(kernel.callsOf('tunOpen')).toEqual([])
  })
})

describe('a name that is busy', () => {
  /** Busy until that many milliseconds have passed; -1: for ever. */
  function busyFor(ms: number): FakeKernel {
    const since = Date.now()
    return new FakeKernel({
      tunOpen: (_netns, _path, name, flags, nameOut, stageOut) => {
        stageOut[0] = SETIFF
        if (ms < 0 || Date.now() - since < ms) return -EBUSY
        kernel.flags = flags
        return kernel.attach(name, nameOut)
      },
    })
  }

  beforeEach(() => void vi.useFakeTimers())

  test('is tried again for a second: a killed owner lets go of it some time later', async () => {
    kernel = busyFor(950)
    const opening = open({ ifname: 'x0' })
    await vi.advanceTimersByTimeAsync(900)
    expect([...kernel.open]).toEqual([])
    await vi.advanceTimersByTimeAsync(100)
    expect((await opening).identify().ifname).toBe('x0')
  })

  test('is an error after that second, and not before', async () => {
    kernel = busyFor(-1)
    let error: unknown
    const done = failure({ ifname: 'x0' }).then((reason) => (error = reason))
    await vi.advanceTimersByTimeAsync(980)
    expect(error).toBeUndefined()
    const tries = kernel.callsOf('tunOpen').length
    // Often enough to be soon, seldom enough to be cheap.
    expect(tries).toBeGreaterThan(10)
    expect(tries).toBeLessThan(200)
    await vi.advanceTimersByTimeAsync(100)
    await done
    expect(error).toMatchObject({
      code: 'TAP_SETIFF',
      message: 'could not configure /dev/net/tun (x0): Device or resource busy',
      hint: 'another process holds x0',
    })
  })

  test('is the only errno that is waited for; an interrupted call is repeated at once', async () => {
    kernel = failingAt(SETIFF, EINVAL)
    await failure({ ifname: 'x0' })
    expect(kernel.callsOf('tunOpen')).toHaveLength(1)
    let calls = 0
    kernel = new FakeKernel({
      tunOpen: (_netns, _path, name, _flags, nameOut) =>
        calls++ === 0 ? -EINTR : kernel.attach(name, nameOut),
    })
    await open({ ifname: 'x0' })
    expect(calls).toBe(2)
  })
})

describe('settings', () => {
  test.each([
    [undefined, INT_MAX],
    [0, INT_MAX],
    [1, 1],
    [200_000, 200_000],
    [2 ** 40, INT_MAX],
  ])('sndbuf %s asks for %i', async (sndbuf, bytes) => {
    await open({ ifname: 'x0', ...(sndbuf === undefined ? {} : { sndbuf }) })
    expect(kernel.callsOf('tunSetSndbuf')).toEqual([`tunSetSndbuf 102 ${bytes}`])
  })

  test('sndbuf that is refused is an error only when it was given', async () => {
    kernel = new FakeKernel({ tunSetSndbuf: () => -EINVAL })
    await (await open({ ifname: 'x0' })).close()
    for (const sndbuf of [0, 5]) {
      expect(await failure({ ifname: 'x0', sndbuf })).toMatchObject({
        code: 'TAP_IOCTL',
        message: 'TUNSETSNDBUF ioctl failed: Invalid argument',
        errno: EINVAL,
        ifname: 'x0',
      })
    }
  })

  test('persist, owner and group are left alone unless given', async () => {
    await open({ ifname: 'x0' })
    expect(kernel.callsOf('tunSetPersist', 'tunSetOwner', 'tunSetGroup')).toEqual([])
    kernel.calls.length = 0
    const { fds } = await open({ ifname: 'x0', persist: true, owner: '1000', group: 'root' })
    expect(kernel.callsOf('tunSetPersist', 'tunSetOwner', 'tunSetGroup')).toEqual([
      `tunSetOwner ${fds[0]} 1000`,
      `tunSetGroup ${fds[0]} 0`,
      `tunSetPersist ${fds[0]} 1`,
    ])
    kernel.calls.length = 0
    await open({ ifname: 'x0', persist: false })
    expect(kernel.callsOf('tunSetPersist')).toEqual([expect.stringMatching(/ 0$/)])
  })

  test.each([
    [{ persist: true }, 'tunSetPersist', 'TUNSETPERSIST'],
    [{ owner: 'root' }, 'tunSetOwner', 'TUNSETOWNER'],
    [{ group: '5' }, 'tunSetGroup', 'TUNSETGROUP'],
  ] as const)('%o that is refused is an error', async (wish, call, request) => {
    kernel = new FakeKernel({ [call]: () => -EPERM })
    expect(await failure({ ifname: 'x0', ...wish })).toMatchObject({
      code: 'TAP_IOCTL',
      message: `${request} ioctl failed: Operation not permitted`,
    })
  })

  test('an owner that nobody knows is said so', async () => {
    expect(await failure({ ifname: 'x0', owner: 'no-such-user' })).toMatchObject({
      code: 'BAD_OPTION',
      message: 'owner=no-such-user: not in /etc/passwd',
    })
  })

  test('mtu and up go over netlink, by the name that the device has', async () => {
    kernel.number = 2
    await open({ ifname: 'fp%d', mtu: 1400, up: true })
    expect(kernel.callsOf('netlinkRoute')).toHaveLength(1)
    kernel.calls.length = 0
    await open({ ifname: 'fp%d' })
    expect(kernel.callsOf('netlinkRoute')).toEqual([])
  })

  test('the carrier is the device’s, shown on its first queue', async () => {
    const tap = await open({ ifname: 'x0', queues: 2 })
    tap.setCarrier(false)
    tap.setCarrier(true)
    expect(kernel.callsOf('tunSetCarrier')).toEqual([
      `tunSetCarrier ${tap.fds[0]} 0`,
      `tunSetCarrier ${tap.fds[0]} 1`,
    ])
  })
})

describe('scripts', () => {
  test('up runs once for all queues, down at the end, each with the real name', async () => {
    kernel.number = 4
    const log = join(directory, 'log')
    const tap = await open({
      ifname: 'fp%d',
      queues: 3,
      script: script('up', `echo "up $@" >>${log}`),
      downscript: script('down', `echo "down $@" >>${log}`),
    })
    expect(readFileSync(log, 'utf8')).toBe('up fp4\n')
    await tap.close()
    expect(readFileSync(log, 'utf8')).toBe('up fp4\ndown fp4\n')
    expect([...kernel.open]).toEqual([])
  })

  test('a script that fails closes the device again', async () => {
    const path = script('bad', 'exit 7')
    expect(await failure({ ifname: 'x0', queues: 2, script: path })).toMatchObject({
      code: 'TAP_SCRIPT',
      message: `network script ${path} failed with status 7`,
    })
  })

  test('a down-script that fails is logged, and the descriptors are closed all the same', async () => {
    const path = script('bad', 'exit 9')
    const tap = await open({ ifname: 'x0', downscript: path })
    await tap.close()
    expect(logged).toEqual([`network script ${path} failed with status 9 [TAP_SCRIPT]`])
    expect([...kernel.open]).toEqual([])
  })
})

describe('given descriptors', () => {
  /** Descriptors that somebody opened before: TAPs with these flags. */
  function given(flags: Readonly<Record<number, number>>): FakeKernel {
    const fake = new FakeKernel({
      tunGetIff: (fd, nameOut) => {
        const own = flags[fd]
        if (own === undefined) return -EBADF
        fake.writeName(nameOut, 'g0')
        return own
      },
    })
    for (const fd of Object.keys(flags)) fake.open.add(Number(fd))
    return fake
  }

  test('fd= by name or number: made non-blocking, not configured by name', async () => {
    for (const fd of ['mine', '7']) {
      kernel = given({ 7: TAP_NO_PI | VNET_HDR })
      const tap = await open({ fd }, { mine: 7 })
      expect(tap.fds).toEqual([7])
      expect(tap.vnetHdrLength).toBe(24)
      expect(tap.identify().ifname).toBe('g0')
      expect(kernel.callsOf('getStatusFlags', 'setStatusFlags')).toEqual([
        'getStatusFlags 7',
        'setStatusFlags 7 2050',
      ])
      expect(kernel.callsOf('tunOpen', 'open')).toEqual([])
      await tap.close()
      expect([...kernel.open]).toEqual([])
    }
  })

  test('fds= are queues in their order', async () => {
    kernel = given({ 7: TAP_NO_PI, 9: TAP_NO_PI, 8: TAP_NO_PI })
    const tap = await open({ fds: 'b:9:a' }, { a: 7, b: 8 })
    expect(tap.fds).toEqual([8, 9, 7])
    expect(tap.vnetHdrLength).toBe(0)
  })

  test.each([
    ['none', "File descriptor named 'none' has not been found"],
    ['', "File descriptor named '' has not been found"],
    ['7x', "Invalid file descriptor number '7x'"],
    ['99999999999', "Invalid file descriptor number '99999999999'"],
  ])('fd=%s is refused', async (fd, message) => {
    kernel = given({ 7: TAP_NO_PI })
    expect(await failure({ fd })).toMatchObject({ code: 'BAD_OPTION', message })
  })

  test('a descriptor that is not a TAP is refused with its number, and stays its giver’s', async () => {
    kernel = new FakeKernel({ tunGetIff: () => -ENOTTY })
    kernel.open.add(7)
    expect(await failure({ fd: '7' })).toMatchObject({
      code: 'TAP_FD',
      message: 'Unable to query TUNGETIFF on FD 7: Inappropriate ioctl for device',
      errno: ENOTTY,
    })
    expect([...kernel.open]).toEqual([7])
  })

  test('one that another port has, and one that is given twice, are refused and named', async () => {
    kernel = given({ 7: TAP_NO_PI, 8: TAP_NO_PI })
    const tap = await open({ fd: '7' })
    const inUse = { code: 'BAD_OPTION', message: 'file descriptor 7 is in use: port "a"' }
    expect(await failure({ fd: '7' })).toMatchObject(inUse)
    expect(await failure({ fds: '8:x' }, { x: 7 })).toMatchObject(inUse)
    expect(await failure({ fds: '8:x' }, { x: 8 })).toMatchObject({
      code: 'BAD_OPTION',
      message: 'file descriptor 8 is given more than once',
    })
    await tap.abandon()
    await open({ fd: '7' })
  })

  test('fds= of different kinds are refused, and stay their giver’s', async () => {
    kernel = given({ 7: TAP_NO_PI | VNET_HDR, 8: TAP_NO_PI })
    expect(await failure({ fds: '7:8' })).toMatchObject({
      code: 'BAD_OPTION',
      message: 'vnet_hdr not consistent across given tap fds',
    })
    expect([...kernel.open]).toEqual([7, 8])
  })

  test('one that cannot be made non-blocking is refused', async () => {
    kernel = new FakeKernel({ setStatusFlags: () => -EPERM })
    kernel.open.add(7)
    expect(await failure({ fd: '7' })).toMatchObject({
      code: 'TAP_FD',
      message: "Can't set file descriptor 7 non-blocking: fcntl: Operation not permitted",
    })
  })

  test('mtu and up are set where the device is, which need not be our namespace', async () => {
    // Any file that is not our namespace is another one.
    for (const [path, isElsewhere] of [
      ['/proc/self/ns/net', false],
      ['/proc/self/ns/mnt', true],
    ] as const) {
      let netns = -1
      const asked: number[] = []
      kernel = new FakeKernel({
        tunGetIff: (_fd, nameOut) => {
          kernel.writeName(nameOut, 'g0')
          return TAP_NO_PI
        },
        tunGetDevNetns: () => (netns = realShim.open(path, 0)),
        netlinkRoute: (netnsFd) => {
          asked.push(netnsFd === netns ? 1 : netnsFd)
          return 200
        },
        close: (fd) => (fd === 200 ? 0 : realShim.close(fd)),
      })
      const tap = await open({ fd: '7', up: true })
      expect(asked).toEqual([isElsewhere ? 1 : -1])
      await tap.abandon()
    }
  })
})

describe('who it is', () => {
  test('follows renames; a device that is gone keeps its last name', async () => {
    let name: string | undefined = 'x0'
    kernel = new FakeKernel({
      tunGetIff: (_fd, nameOut) => {
        if (name === undefined) return -77
        kernel.writeName(nameOut, name)
        return TAP_NO_PI
      },
    })
    const tap = await open({ ifname: 'x0' })
    name = 'abcdefghijklmno'
    expect(tap.identify().ifname).toBe('abcdefghijklmno')
    name = undefined
    expect(tap.identify().ifname).toBe('abcdefghijklmno')
  })

  test('the namespace is the wanted one until the kernel tells another', async () => {
    const tap = await open({ ifname: 'x0', netns: '/ns/wanted' })
    expect(tap.identify().netns).toBe('/ns/wanted')
  })
})
