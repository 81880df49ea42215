/** Unix sockets and messages that carry descriptors. */
import { mkdtempSync, readlinkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { POLLIN } from '../../../src/abi/epoll.ts'
import {
  EADDRINUSE,
  EAFNOSUPPORT,
  EAGAIN,
  EBADF,
  ECONNREFUSED,
  EINVAL,
  ENOENT,
  EPERM,
  EPIPE,
} from '../../../src/abi/errno.ts'
import { AF_INET } from '../../../src/abi/ip-socket.ts'
import { shim } from '../../../src/native/shim.ts'
import { compiledTool } from '../../support/lab.ts'
import { Background, until } from '../../support/processes.ts'
import {
  isCloseOnExec,
  keepFd,
  memfd,
  O_NONBLOCK,
  openDescriptors,
  pair,
  SOCK_DGRAM,
  SOCK_SEQPACKET,
  SOCK_STREAM,
} from './windows.ts'

const CLOSED_FD = 1 << 20
const ENAMETOOLONG = 36
const MSG_TRUNC = 0x20
const MSG_DONTWAIT = 0x40
/** What the kernel lets one message carry. */
const SCM_MAX_FD = 253

function withDirectory(use: (directory: string) => void): void {
  const directory = mkdtempSync('/tmp/framepump-shim-')
  try {
    use(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

describe('sockets', () => {
  test('a server and a client find each other and know who the other is', () => {
    withDirectory((directory) => {
      const path = join(directory, 'socket')
      const server = keepFd(shim.socketUnix(SOCK_STREAM))
      expect(shim.bindUnix(server, path)).toBe(0)
      expect(shim.listen(server, 4)).toBe(0)
      expect(shim.accept(server)).toBe(-EAGAIN)
      const client = keepFd(shim.socketUnix(SOCK_STREAM))
      expect(shim.connectUnix(client, path)).toBe(0)
      const accepted = keepFd(shim.accept(server))
      for (const fd of [server, client, accepted]) {
        expect(isCloseOnExec(fd)).toBe(true)
        expect(shim.getStatusFlags(fd) & O_NONBLOCK).toBe(O_NONBLOCK)
      }
      const credentials = new Int32Array(3)
      expect(shim.peerCredentials(accepted, credentials)).toBe(0)
      expect([...credentials]).toEqual([process.pid, process.getuid!(), process.getgid!()])

      const other = keepFd(shim.socketUnix(SOCK_STREAM))
      expect(shim.bindUnix(other, path)).toBe(-EADDRINUSE)
      shim.setStatusFlags(server, 0)
      shim.shutdown(server, 2)
      expect(shim.connectUnix(other, path)).toBe(-ECONNREFUSED)
      expect(shim.connectUnix(other, join(directory, 'nobody'))).toBe(-ENOENT)
    })
  })

  test('a path of 107 bytes is the longest', () => {
    withDirectory((directory) => {
      const path = join(directory, 'x'.repeat(107 - directory.length - 1))
      expect(Buffer.byteLength(path)).toBe(107)
      const fd = keepFd(shim.socketUnix(SOCK_STREAM))
      expect(shim.bindUnix(fd, `${path}x`)).toBe(-ENAMETOOLONG)
      expect(shim.connectUnix(fd, `${path}x`)).toBe(-ENAMETOOLONG)
      expect(shim.bindUnix(fd, path)).toBe(0)
    })
  })

  test('an abstract name is as long as it is, up to 107 bytes', async () => {
    const name = `framepump-${process.pid}`
    for (const longest of [name, name.padEnd(107, 'x')]) {
      const server = new Background(compiledTool('notify-socket'), [`@${longest}`])
      try {
        await until('it listens', () => server.stdout === 'ready\n')
        const fd = keepFd(shim.socketUnix(SOCK_DGRAM))
        expect(shim.connectAbstract(fd, longest.slice(0, -1))).toBe(-ECONNREFUSED)
        expect(shim.connectAbstract(fd, longest)).toBe(0)
        expect(shim.sendMsg(fd, Buffer.from('hello'), 0, 5, null, 0, 0)).toBe(5)
        await until('it was heard', () => server.stdout === `ready\n${process.pid} hello\n`)
      } finally {
        await server.stop()
      }
    }
    const fd = keepFd(shim.socketUnix(SOCK_DGRAM))
    expect(shim.connectAbstract(fd, 'x'.repeat(108))).toBe(-ENAMETOOLONG)
    expect(shim.connectAbstract(CLOSED_FD, name)).toBe(-EBADF)
  })

  test('a pair is blocking, close-on-exec, and needs room for two descriptors', () => {
    const before = openDescriptors()
    const [near, far] = pair(SOCK_SEQPACKET, false)
    for (const fd of [near, far]) {
      expect(isCloseOnExec(fd)).toBe(true)
      expect(shim.getStatusFlags(fd) & O_NONBLOCK).toBe(0)
    }
    expect(shim.socketPair(SOCK_STREAM, new Int32Array(1))).toBe(-EINVAL)
    expect(shim.socketPair(999, new Int32Array(2))).toBeLessThan(0)
    expect(openDescriptors()).toBe(before + 2)
  })

  test('a socket that was shut down says so at the other end', () => {
    const [near, far] = pair(SOCK_STREAM)
    expect(shim.shutdown(near, 1)).toBe(0)
    const data = new Uint8Array(10)
    expect(shim.recvMsg(far, data, new Int32Array(0), new Int32Array(2), 0)).toBe(0)
    expect(shim.sendMsg(near, data, 0, 1, null, 0, 0)).toBe(-EPIPE)
  })

  test('wrong descriptors answer -errno', () => {
    const out = new Int32Array(3)
    const data = new Uint8Array(8)
    expect(shim.bindUnix(CLOSED_FD, '/tmp/x')).toBe(-EBADF)
    expect(shim.connectUnix(CLOSED_FD, '/tmp/x')).toBe(-EBADF)
    expect(shim.listen(CLOSED_FD, 1)).toBe(-EBADF)
    expect(shim.accept(CLOSED_FD)).toBe(-EBADF)
    expect(shim.shutdown(CLOSED_FD, 0)).toBe(-EBADF)
    expect(shim.peerCredentials(CLOSED_FD, out)).toBe(-EBADF)
    expect(shim.recvMsg(CLOSED_FD, data, out, out, 0)).toBe(-EBADF)
    expect(shim.sendMsg(CLOSED_FD, data, 0, 8, null, 0, 0)).toBe(-EBADF)
    expect(shim.peerCredentials(CLOSED_FD, new Int32Array(2))).toBe(-EINVAL)
    expect(shim.socketUnix(999)).toBeLessThan(0)
  })
})

describe('messages', () => {
  test('send a part of the data and receive it with its flags', () => {
    const [near, far] = pair(SOCK_SEQPACKET)
    const data = Buffer.from('..message..')
    expect(shim.sendMsg(near, data, 2, 7, null, 0, 0)).toBe(7)
    const received = new Uint8Array(32).fill(0xa5)
    const info = new Int32Array([-7, -7])
    expect(shim.recvMsg(far, received.subarray(4, 24), new Int32Array(4), info, 0)).toBe(7)
    expect(Buffer.from(received.subarray(4, 11)).toString()).toBe('message')
    expect([...received.subarray(0, 4), received[11]]).toEqual([0xa5, 0xa5, 0xa5, 0xa5, 0xa5])
    expect(info[0]).toBe(0)
    expect(info[1] & MSG_TRUNC).toBe(0)
  })

  test('a message longer than the data is marked as cut', () => {
    const [near, far] = pair(SOCK_DGRAM)
    shim.sendMsg(near, new Uint8Array(20), 0, 20, null, 0, 0)
    const info = new Int32Array(2)
    expect(shim.recvMsg(far, new Uint8Array(8), new Int32Array(0), info, 0)).toBe(8)
    expect(info[1] & MSG_TRUNC).toBe(MSG_TRUNC)
  })

  test('flags reach the kernel in both directions', () => {
    const [near, far] = pair(SOCK_STREAM, false)
    const data = new Uint8Array(65_536)
    const info = new Int32Array(2)
    expect(shim.recvMsg(far, data, new Int32Array(0), info, MSG_DONTWAIT)).toBe(-EAGAIN)
    let sent = 0
    while ((sent = shim.sendMsg(near, data, 0, data.length, null, 0, MSG_DONTWAIT)) > 0);
    expect(sent).toBe(-EAGAIN)
  })

  test('refuse data and descriptors that are not in their arrays', () => {
    const [near, far] = pair(SOCK_SEQPACKET)
    const data = new Uint8Array(16)
    const fds = new Int32Array([near, far])
    const many = new Int32Array(SCM_MAX_FD + 1).fill(near)
    for (const [offset, length, given, count] of [
      [-1, 4, null, 0],
      [0, -1, null, 0],
      [0, 17, null, 0],
      [13, 4, null, 0],
      [0x7fff_ffff, 0x7fff_ffff, null, 0],
      [0, 4, null, 1],
      [0, 4, fds, 3],
      [0, 4, fds, -1],
      [0, 4, many, SCM_MAX_FD + 1],
    ] as const) {
      expect(shim.sendMsg(near, data, offset, length, given, count, 0)).toBe(-EINVAL)
    }
    expect(shim.poll(far, POLLIN, 0)).toBe(0)
    expect(shim.sendMsg(near, data, 0, 4, new Int32Array([CLOSED_FD]), 1, 0)).toBe(-EBADF)
    shim.sendMsg(near, data, 0, 4, null, 0, 0)
    expect(shim.recvMsg(far, data, fds, new Int32Array(1), 0)).toBe(-EINVAL)
    expect(shim.poll(far, POLLIN, 0)).toBe(POLLIN)
  })
})

describe('descriptors in messages', () => {
  test('arrive as the same open files, in order and close-on-exec', () => {
    const [near, far] = pair(SOCK_STREAM)
    const files = [memfd(10), memfd(20)]
    const before = openDescriptors()
    const given = new Int32Array([files[0], files[1], -1])
    expect(shim.sendMsg(near, new Uint8Array([1]), 0, 1, given, 2, 0)).toBe(1)
    const fds = new Int32Array(4).fill(-7)
    const info = new Int32Array(2)
    expect(shim.recvMsg(far, new Uint8Array(8), fds, info, 0)).toBe(1)
    expect(info[0]).toBe(2)
    expect([fds[2], fds[3]]).toEqual([-7, -7])
    expect(openDescriptors()).toBe(before + 2)
    for (const k of [0, 1]) {
      keepFd(fds[k])
      expect(isCloseOnExec(fds[k])).toBe(true)
      expect(readlinkSync(`/proc/self/fd/${fds[k]}`)).toMatch(/^\/memfd:framepump-test/)
    }
    // One open file: the length that is set through one descriptor is seen through the other.
    shim.setStatusFlags(fds[1], O_NONBLOCK)
    expect(shim.getStatusFlags(files[1]) & O_NONBLOCK).toBe(O_NONBLOCK)
    expect(shim.getStatusFlags(files[0]) & O_NONBLOCK).toBe(0)
  })

  test('that nobody has room for are closed', () => {
    const [near, far] = pair(SOCK_STREAM)
    const file = memfd(10)
    const before = openDescriptors()
    const given = new Int32Array(8).fill(file)
    const info = new Int32Array(2)
    for (const room of [0, 3]) {
      expect(shim.sendMsg(near, new Uint8Array([1]), 0, 1, given, 8, 0)).toBe(1)
      const fds = new Int32Array(room)
      expect(shim.recvMsg(far, new Uint8Array(8), fds, info, 0)).toBe(1)
      expect(info[0]).toBe(room)
      expect(openDescriptors()).toBe(before + room)
      for (const fd of fds) expect(shim.close(fd)).toBe(0)
    }
    expect(openDescriptors()).toBe(before)
  })

  test('arrive even when they are as many as the kernel allows', () => {
    const [near, far] = pair(SOCK_STREAM)
    const before = openDescriptors()
    const given = new Int32Array(SCM_MAX_FD).fill(near)
    expect(shim.sendMsg(near, new Uint8Array([1]), 0, 1, given, SCM_MAX_FD, 0)).toBe(1)
    const fds = new Int32Array(SCM_MAX_FD)
    const info = new Int32Array(2)
    expect(shim.recvMsg(far, new Uint8Array(8), fds, info, 0)).toBe(1)
    expect(info[0]).toBe(SCM_MAX_FD)
    expect(new Set(fds).size).toBe(SCM_MAX_FD)
    for (const fd of fds) expect(shim.close(fd)).toBe(0)
    expect(openDescriptors()).toBe(before)
  })

  test('that were never received do not stay behind when the socket is closed', () => {
    const file = memfd(10)
    const before = openDescriptors()
    const fds = new Int32Array(2)
    shim.socketPair(SOCK_STREAM, fds)
    shim.sendMsg(fds[0], new Uint8Array([1]), 0, 1, new Int32Array([file]), 1, 0)
    for (const fd of fds) shim.close(fd)
    expect(openDescriptors()).toBe(before)
  })
})

test('a socket for GRE is connected to addresses of its family, and to nobody', () => {
  expect(shim.connectIp(CLOSED_FD, new Uint8Array(4))).toBe(-EBADF)
  expect(shim.connectIp(CLOSED_FD, new Uint8Array(5))).toBe(-EINVAL)
  expect(shim.socketGre(-1)).toBe(-EAFNOSUPPORT)
  const fd = shim.socketGre(AF_INET)
  // Without CAP_NET_RAW that is all.
  if (fd === -EPERM) return
  keepFd(fd)
  expect(isCloseOnExec(fd)).toBe(true)
  expect(shim.getStatusFlags(fd) & O_NONBLOCK).toBe(O_NONBLOCK)
  expect(shim.connectIp(fd, new Uint8Array([127, 0, 0, 1]))).toBe(0)
  expect(shim.connectIp(fd, new Uint8Array(0))).toBe(0)
  expect(shim.connectIp(fd, new Uint8Array(16))).toBe(-EAFNOSUPPORT)
})
