/** The filter, run as the kernel runs it: by a small interpreter of classic BPF. */
import { describe, expect, test } from 'vitest'
import { AUDIT_ARCH } from '../../../src/abi/seccomp.ts'
import { SYSCALL_COLUMN, SYSCALL_LAST, SYSCALLS } from '../../../src/abi/syscalls.ts'
import type { FilterPolicy } from '../../../src/daemon/seccomp-filter.ts'
import { makeFilter } from '../../../src/daemon/seccomp-filter.ts'

const ALLOW = 0x7fff0000
const EPERM = 0x00050001
const ENOSYS = 0x00050026
const PID = 4711

/** What the program answers to a call; throws when it leaves itself or reads beyond the data. */
function run(program: Uint8Array, arch: number, number: number, args: readonly bigint[]): number {
  const data = new DataView(new ArrayBuffer(64))
  data.setUint32(0, number, true)
  data.setUint32(4, arch, true)
  args.forEach((value, index) => data.setBigUint64(16 + 8 * index, BigInt.asUintN(64, value), true))
  const code = new DataView(program.buffer)
  let a = 0
  for (let at = 0; ;) {
    const op = code.getUint16(at * 8, true)
    const [yes, no] = [code.getUint8(at * 8 + 2), code.getUint8(at * 8 + 3)]
    const k = code.getUint32(at * 8 + 4, true)
    at++
    if (op === 0x20) a = data.getUint32(k, true)
    else if (op === 0x05) at += k
    else if (op === 0x15) at += a === k ? yes : no
    else if (op === 0x35) at += a >= k ? yes : no
    else if (op === 0x45) at += (a & k) === 0 ? no : yes
    else if (op === 0x06) return k
    else throw new Error(`instruction ${op}`)
  }
}

const STRICT: FilterPolicy = {
  pid: PID,
  allowsPrograms: false,
  allowsNetns: false,
  allowsPackets: false,
  allowsUring: false,
}

describe.each(['x64', 'arm64'])('the filter for %s', (architecture) => {
  const column = SYSCALL_COLUMN[architecture]!
  const arch = AUDIT_ARCH[architecture]!
  const ask = (
    policy: Partial<FilterPolicy>,
    name: string,
    ...args: (number | bigint)[]
  ): number => {
    const program = makeFilter({ ...STRICT, ...policy }, architecture)!
    const number = SYSCALLS[name][column]
    return number === null ? EPERM : run(program, arch, number, args.map(BigInt))
  }

  test('fits the kernel', () => {
    const length = makeFilter(STRICT, architecture)!.length / 8
    expect(length).toBeGreaterThan(100)
    expect(length).toBeLessThan(4096)
  })

  test('answers every number, and knows none beyond the last', () => {
    const program = makeFilter(STRICT, architecture)!
    const looked = new Set(Object.values(SYSCALLS).map((row) => row[column]))
    for (let number = 0; number <= SYSCALL_LAST; number++) {
      const answer = run(program, arch, number, [0n, 0n, 0n, 0n, 0n, 0n])
      if (!looked.has(number)) expect([number, answer]).toEqual([number, ALLOW])
      else expect([ALLOW, EPERM, ENOSYS]).toContain(answer)
    }
    for (const number of [SYSCALL_LAST + 1, 1000, 0x40000000, 0x40000003, 0xffffffff]) {
      expect([number, run(program, arch, number, [])]).toEqual([number, ENOSYS])
    }
  })

  test('calls of other architectures do not exist', () => {
    const program = makeFilter(STRICT, architecture)!
    for (const other of [0x40000003, 0x40000028, 0, ...Object.values(AUDIT_ARCH)]) {
      const isOurs = other === arch
      expect(run(program, other!, 63, [])).toBe(isOurs ? ALLOW : ENOSYS)
    }
  })

  test('what a switch never needs is refused whatever the policy', () => {
    const policy = { allowsPrograms: true, allowsNetns: true, allowsUring: true }
    const names = 'ptrace mount umount2 pivot_root move_mount fsopen unshare bpf userfaultfd'
    const more = 'perf_event_open init_module finit_module kexec_load keyctl add_key reboot acct'
    const last = 'swapon settimeofday clock_settime process_vm_readv process_vm_writev chroot'
    const others = 'pidfd_getfd open_by_handle_at io_uring_setup quotactl syslog'
    for (const name of [names, more, last, others].join(' ').split(' ')) {
      expect([name, ask(policy, name)]).toEqual([name, EPERM])
    }
  })

  test('programs run only when they are to', () => {
    for (const name of ['execve', 'execveat', 'fork', 'vfork', 'setresuid', 'pidfd_open']) {
      expect([name, ask({}, name)]).toEqual([name, EPERM])
      const isThere = SYSCALLS[name][column] !== null
      if (isThere) expect([name, ask({ allowsPrograms: true }, name)]).toEqual([name, ALLOW])
    }
  })

  test('threads are made, processes only for programs, namespaces never', () => {
    const thread = 0x3d0f00
    expect(ask({}, 'clone', thread)).toBe(ALLOW)
    expect(ask({}, 'clone', 17)).toBe(EPERM)
    expect(ask({ allowsPrograms: true }, 'clone', 17)).toBe(ALLOW)
    for (const bit of [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000]) {
      expect(ask({ allowsPrograms: true }, 'clone', thread | bit)).toBe(EPERM)
    }
    expect(ask({ allowsPrograms: true }, 'clone', 0x40000000n | 17n)).toBe(EPERM)
    expect(ask({ allowsPrograms: true }, 'clone3')).toBe(ENOSYS)
  })

  test('only network namespaces are entered, and only where that is allowed', () => {
    expect(ask({}, 'setns', 5, 0x40000000)).toBe(EPERM)
    expect(ask({ allowsNetns: true }, 'setns', 5, 0x40000000)).toBe(ALLOW)
    // 0 would be any kind.
    expect(ask({ allowsNetns: true }, 'setns', 5, 0)).toBe(EPERM)
    expect(ask({ allowsNetns: true }, 'setns', 5, 0x10000000)).toBe(EPERM)
  })

  test('sockets are of AF_UNIX and NETLINK_ROUTE; scripts may have those of IP, raw sockets theirs', () => {
    expect(ask({}, 'socket', 1, 1, 0)).toBe(ALLOW)
    expect(ask({}, 'socket', 16, 3, 0)).toBe(ALLOW)
    expect(ask({}, 'socket', 16, 3, 12)).toBe(EPERM)
    // The kernel looks at 32 bits: the others change nothing.
    expect(ask({}, 'socket', 0x1_0000_0001n, 1, 0)).toBe(ALLOW)
    expect(ask({}, 'socket', 0x1_0000_0002n, 1, 0)).toBe(EPERM)
    for (const family of [0, 2, 3, 10, 17, 29, 38, 40, 44]) {
      expect([family, ask({}, 'socket', family, 1, 0)]).toEqual([family, EPERM])
      const isForScripts = family === 2 || family === 10
      const answer = ask({ allowsPrograms: true }, 'socket', family, 1, 0)
      expect([family, answer]).toEqual([family, isForScripts ? ALLOW : EPERM])
    }
    expect(ask({ allowsPackets: true }, 'socket', 17, 3, 0)).toBe(ALLOW)
    // Those of mirrors to other hosts: SOCK_RAW, CLOEXEC, NONBLOCK, IPPROTO_GRE.
    for (const family of [2, 10]) {
      expect(ask({ allowsPackets: true }, 'socket', family, 0o2004003, 47)).toBe(ALLOW)
      expect(ask({ allowsPackets: true }, 'socket', family, 0o2004003, 1)).toBe(EPERM)
      expect(ask({ allowsPackets: true }, 'socket', family, 1, 47)).toBe(EPERM)
      expect(ask({}, 'socket', family, 0o2004003, 47)).toBe(EPERM)
    }
    expect(ask({}, 'socketpair', 1)).toBe(ALLOW)
    expect(ask({}, 'socketpair', 2)).toBe(EPERM)
  })

  test('signals go to the process itself', () => {
    for (const name of ['kill', 'tgkill', 'rt_sigqueueinfo', 'rt_tgsigqueueinfo']) {
      expect([name, ask({}, name, PID)]).toEqual([name, ALLOW])
      for (const pid of [0, 1, -1, PID + 1]) {
        expect([name, pid, ask({}, name, pid)]).toEqual([name, pid, EPERM])
      }
      expect([name, ask({ allowsPrograms: true }, name, 1)]).toEqual([name, ALLOW])
    }
    expect(ask({}, 'prlimit64', 0)).toBe(ALLOW)
    expect(ask({}, 'prlimit64', 1)).toBe(EPERM)
  })

  test('of prctl, ioctl and personality a few are refused', () => {
    expect(ask({}, 'prctl', 15)).toBe(ALLOW)
    for (const option of [4, 22, 28, 35, 0x59616d61]) expect(ask({}, 'prctl', option)).toBe(EPERM)
    expect(ask({}, 'ioctl', 0, 0x5412)).toBe(EPERM)
    expect(ask({}, 'ioctl', 0, 0x541c)).toBe(EPERM)
    expect(ask({}, 'ioctl', 0, 0x400454ca)).toBe(ALLOW)
    expect(ask({}, 'personality', 0xffffffff)).toBe(ALLOW)
    expect(ask({}, 'personality', 0x40000)).toBe(EPERM)
  })

  test('io_uring is entered where there is one', () => {
    expect(ask({}, 'io_uring_enter')).toBe(EPERM)
    expect(ask({ allowsUring: true }, 'io_uring_enter')).toBe(ALLOW)
  })
})

test('there is none for an architecture that is not known', () => {
  expect(makeFilter(STRICT, 'riscv64')).toBeUndefined()
})
