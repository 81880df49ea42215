/** Network namespaces by name, path or pid, and the names of those that devices turn up in. */
import { closeSync, fstatSync, openSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { EACCES, EINVAL, ENOENT, EPERM } from '../../../../src/abi/errno.ts'
import { SysError } from '../../../../src/errors.ts'
import { shim } from '../../../../src/native/shim.ts'
import { cannotEnter, netnsName, openNetns } from '../../../../src/port/interface/netns.ts'

const OURS = '/proc/self/ns/net'
/** A file of the namespace file system that is not our network namespace. */
const OTHER = '/proc/self/ns/mnt'

/** The paths that are tried for a name; each fails with the errno. */
function tried(netns: string, errno: number): { paths: string[]; error: SysError } {
  const paths: string[] = []
  try {
    openNetns({ open: (path) => (paths.push(path), -errno) }, netns)
  } catch (error) {
    return { paths, error: error as SysError }
  }
  throw new Error('it was opened')
}

describe('openNetns', () => {
  test.each([
    ['/proc/1/ns/net', ['/proc/1/ns/net']],
    ['./relative', ['./relative']],
    ['1234', ['/proc/1234/ns/net']],
    ['blue', ['/run/netns/blue', '/var/run/netns/blue']],
    ['12ab', ['/run/netns/12ab', '/var/run/netns/12ab']],
  ])('%s is looked for in %j', (netns, paths) => {
    expect(tried(netns, ENOENT).paths).toEqual(paths)
  })

  test('one that is there but not for us is not looked for elsewhere', () => {
    const { paths, error } = tried('blue', EACCES)
    expect(paths).toEqual(['/run/netns/blue'])
    expect(error.message).toBe('no network namespace "blue": Permission denied')
  })

  test('one that is nowhere is an error that says what may be given', () => {
    const { error } = tried('blue', ENOENT)
    expect(error).toBeInstanceOf(SysError)
    expect(error).toMatchObject({
      code: 'NETNS',
      message: 'no network namespace "blue": No such file or directory',
      syscall: 'open',
      errno: ENOENT,
      hint: expect.stringContaining('ip netns'),
    })
  })

  test('a pid opens the namespace of that process, for this program alone', () => {
    const flags: number[] = []
    const fd = openNetns(
      { open: (path, wish) => (flags.push(wish), shim.open(path, wish)) },
      String(process.pid),
    )
    const ours = openSync(OURS, 'r')
    expect(fstatSync(fd).ino).toBe(fstatSync(ours).ino)
    expect(flags).toEqual([0o2000000])
    closeSync(fd)
    closeSync(ours)
  })
})

describe('netnsName', () => {
  let fd: number

  beforeEach(() => (fd = openSync(OTHER, 'r')))
  afterEach(() => closeSync(fd))

  test('our own needs no name', () => {
    const ours = openSync(OURS, 'r')
    expect(netnsName(ours, undefined)).toBeUndefined()
    // Nor when another was wanted: the device has moved here.
    expect(netnsName(ours, OTHER)).toBeUndefined()
    expect(netnsName(ours, 'nowhere')).toBeUndefined()
    closeSync(ours)
  })

  test('the wanted one keeps the name that the user gave it', () => {
    expect(netnsName(fd, OTHER)).toBe(OTHER)
    const ours = openSync(OURS, 'r')
    expect(netnsName(ours, OURS)).toBe(OURS)
    expect(netnsName(ours, String(process.pid))).toBe(String(process.pid))
    closeSync(ours)
  })

  test('one without a name is told by its inode', () => {
    expect(netnsName(fd, undefined)).toBe(`net:[${fstatSync(fd).ino}]`)
    expect(netnsName(fd, 'nowhere')).toBe(`net:[${fstatSync(fd).ino}]`)
  })
})

test('why one cannot be entered: it is none, or that is not permitted', () => {
  expect(cannotEnter('/etc/passwd', EINVAL)).toMatchObject({
    message: 'setns /etc/passwd: Invalid argument',
    hint: 'it is no network namespace',
  })
  expect(cannotEnter('red', EPERM)).toMatchObject({
    message: 'setns red: Operation not permitted',
    hint: 'entering a network namespace needs CAP_SYS_ADMIN',
  })
})
