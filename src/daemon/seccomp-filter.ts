/**
 * The system calls that a running switch is refused, as a classic BPF program for seccomp(2).
 *
 *     architecture -> number, by a binary search over ranges -> allowed | refused | look at arguments
 *
 * It refuses by errno, so that Node, the C library and scripts go on: EPERM, or ENOSYS where the C
 * library has another way (clone3, whose flags no filter can see) and for what is not known here:
 * calls of later kernels, of x32 and of other architectures. Numbers that are allowed whatever their
 * arguments cost nothing more than any filter does from Linux 5.11 on (the kernel keeps a bitmap of
 * them): 48 ns a system call, measured with an empty one as well.
 *
 * A program that the daemon starts inherits all of it.
 */
import { ENOSYS, EPERM } from '../abi/errno.ts'
import {
  AUDIT_ARCH,
  BPF_JMP_JA,
  BPF_JMP_JEQ_K,
  BPF_JMP_JGE_K,
  BPF_JMP_JSET_K,
  BPF_LD_W_ABS,
  BPF_RET_K,
  SECCOMP_DATA_ARCH,
  SECCOMP_DATA_ARGS,
  SECCOMP_DATA_NR,
  SECCOMP_RET_ALLOW,
  SECCOMP_RET_ERRNO,
  SOCK_FILTER_LENGTH,
} from '../abi/seccomp.ts'
import { SYSCALL_COLUMN, SYSCALL_LAST, SYSCALLS } from '../abi/syscalls.ts'

export interface FilterPolicy {
  /** The process: it may send signals to itself only, unless it starts programs. */
  readonly pid: number
  /** Scripts and helpers run: processes may be made, and what `ip` and bridge helpers need. */
  readonly allowsPrograms: boolean
  /** Network namespaces of others are entered. */
  readonly allowsNetns: boolean
  /** Packet sockets are opened, and raw ones of IP for GRE. */
  readonly allowsPackets: boolean
  /**
   * There are rings of io_uring, made before: the engine's, whose operations are limited, or those of
   * Node's event loops (from Node 22 on, unless UV_USE_IO_URING=0), which cannot be and abort without.
   */
  readonly allowsUring: boolean
}

/** code, jump if true, jump if false, k */
type Instruction = readonly [number, number, number, number]

const ALLOW: readonly Instruction[] = [[BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW]]
const REFUSE: readonly Instruction[] = [[BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO | EPERM]]
const UNKNOWN: readonly Instruction[] = [[BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS]]

/** Refused in any case. */
const NEVER: readonly string[] = [
  // Other processes' memory, descriptors and shape.
  'ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp',
  'pidfd_getfd',
  // Mounts and namespaces.
  'mount umount2 pivot_root move_mount open_tree open_tree_attr fsopen fsconfig fsmount',
  'fspick mount_setattr chroot unshare',
  // Programs in the kernel, and what watches it.
  'bpf perf_event_open userfaultfd fanotify_init fanotify_mark lookup_dcookie syslog',
  'sysfs _sysctl nfsservctl lsm_set_self_attr create_module init_module finit_module',
  'delete_module get_kernel_syms query_module kexec_load kexec_file_load add_key',
  'request_key keyctl',
  // The machine as a whole.
  'reboot swapon swapoff acct quotactl quotactl_fd vhangup settimeofday clock_settime',
  'adjtimex clock_adjtime sethostname setdomainname iopl ioperm modify_ldt uselib',
  // Files by handle, past the permissions of directories.
  'name_to_handle_at open_by_handle_at',
  // Memory in ways that nothing here uses.
  'mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages',
  'remap_file_pages vmsplice memfd_secret io_uring_setup',
].flatMap((names) => names.split(' '))

/** Refused unless programs run. */
const FOR_PROGRAMS: readonly string[] = [
  'execve execveat fork vfork mknod mknodat setuid setgid setreuid setregid setresuid',
  'setresgid setgroups setfsuid setfsgid tkill pidfd_open pidfd_send_signal',
].flatMap((names) => names.split(' '))

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const AF_NETLINK = 16
const AF_PACKET = 17
/** SOCK_RAW, SOCK_CLOEXEC, SOCK_NONBLOCK */
const RAW_TYPE = 0o2004003
const IPPROTO_GRE = 47
const NETLINK_ROUTE = 0
const CLONE_NEWNET = 0x40000000
/** NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NEW_MASK = 0x7e020000
const CLONE_THREAD = 0x10000
/** Input as if it had been typed at the terminal. asm-generic/ioctls.h, linux/vt.h */
const TIOCSTI = 0x5412
const TIOCLINUX = 0x541c
/** PR_SET_DUMPABLE, SECCOMP (strict), SECUREBITS, MM, PTRACER. */
const PRCTL_REFUSED = [4, 22, 28, 35, 0x59616d61]
const PERSONALITY_QUERY = 0xffffffff

/** The program, ready for the shim; undefined: not known for this architecture. */
export function makeFilter(policy: FilterPolicy, architecture: string): Uint8Array | undefined {
  const column = SYSCALL_COLUMN[architecture]
  const auditArch = AUDIT_ARCH[architecture]
  if (column === undefined || auditArch === undefined) return undefined
  const bodies = new Map<number, readonly Instruction[]>()
  const set = (name: string, body: readonly Instruction[]): void => {
    const number = SYSCALLS[name][column]
    if (number !== null) bodies.set(number, body)
  }
  for (const name of NEVER) set(name, REFUSE)
  for (const [name, body] of Object.entries(inspected(policy))) set(name, body)
  const program: Instruction[] = [
    [BPF_LD_W_ABS, 0, 0, SECCOMP_DATA_ARCH],
    [BPF_JMP_JEQ_K, UNKNOWN.length, 0, auditArch],
    ...UNKNOWN,
    [BPF_LD_W_ABS, 0, 0, SECCOMP_DATA_NR],
    ...search(ranges(bodies)),
  ]
  return encode(program)
}

/** Those of which the arguments or the policy decide. */
function inspected(policy: FilterPolicy): Readonly<Record<string, readonly Instruction[]>> {
  const { pid, allowsPrograms, allowsNetns, allowsPackets, allowsUring } = policy
  const toSelf = allowsPrograms ? ALLOW : argumentIn(0, [pid], ALLOW, REFUSE)
  const families = allowsPrograms ? [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK] : [AF_UNIX]
  if (allowsPackets) families.push(AF_PACKET)
  const gre = argumentIn(1, [RAW_TYPE], argumentIn(2, [IPPROTO_GRE], ALLOW, REFUSE), REFUSE)
  const raw = allowsPackets && !allowsPrograms ? [AF_INET, AF_INET6] : []
  const netlink = allowsPrograms ? ALLOW : argumentIn(2, [NETLINK_ROUTE], ALLOW, REFUSE)
  return {
    ...Object.fromEntries(FOR_PROGRAMS.map((name) => [name, allowsPrograms ? ALLOW : REFUSE])),
    kill: toSelf,
    tgkill: toSelf,
    rt_sigqueueinfo: toSelf,
    rt_tgsigqueueinfo: toSelf,
    // A thread is all that is made when no program runs; a namespace never.
    clone: [
      ...loadArgument(0),
      ...when(BPF_JMP_JSET_K, CLONE_NEW_MASK, REFUSE),
      ...(allowsPrograms ? ALLOW : [...when(BPF_JMP_JSET_K, CLONE_THREAD, ALLOW), ...REFUSE]),
    ],
    clone3: UNKNOWN,
    setns: allowsNetns ? argumentIn(1, [CLONE_NEWNET], ALLOW, REFUSE) : REFUSE,
    socket: [
      ...loadArgument(0),
      ...families.flatMap((family) => when(BPF_JMP_JEQ_K, family, ALLOW)),
      ...raw.flatMap((family) => when(BPF_JMP_JEQ_K, family, gre)),
      ...when(BPF_JMP_JEQ_K, AF_NETLINK, netlink),
      ...REFUSE,
    ],
    socketpair: argumentIn(0, [AF_UNIX], ALLOW, REFUSE),
    ioctl: argumentIn(1, [TIOCSTI, TIOCLINUX], REFUSE, ALLOW),
    prctl: argumentIn(0, PRCTL_REFUSED, REFUSE, ALLOW),
    prlimit64: argumentIn(0, [0, pid], ALLOW, REFUSE),
    personality: argumentIn(0, [PERSONALITY_QUERY], ALLOW, REFUSE),
    io_uring_enter: allowsUring ? ALLOW : REFUSE,
    io_uring_register: allowsUring ? ALLOW : REFUSE,
  }
}

/** The kernel takes these arguments as 32 bits; so the upper half, which it ignores, is ignored. */
const loadArgument = (index: number): Instruction[] => [
  [BPF_LD_W_ABS, 0, 0, SECCOMP_DATA_ARGS + 8 * index],
]

function when(jump: number, k: number, body: readonly Instruction[]): Instruction[] {
  return [[jump, 0, body.length, k], ...body]
}

function argumentIn(
  index: number,
  values: readonly number[],
  found: readonly Instruction[],
  otherwise: readonly Instruction[],
): Instruction[] {
  const tests = values.flatMap((value) => when(BPF_JMP_JEQ_K, value, found))
  return [...loadArgument(index), ...tests, ...otherwise]
}

interface Range {
  readonly first: number
  readonly body: readonly Instruction[]
}

/** Ranges of numbers from 0 on that meet the same end, each up to the next one's first. */
function ranges(bodies: ReadonlyMap<number, readonly Instruction[]>): Range[] {
  const found: Range[] = [{ first: 0, body: bodies.get(0) ?? ALLOW }]
  for (let number = 1; number <= SYSCALL_LAST; number++) {
    const body = bodies.get(number) ?? ALLOW
    if (body !== found.at(-1)!.body) found.push({ first: number, body })
  }
  return [...found, { first: SYSCALL_LAST + 1, body: UNKNOWN }]
}

/** Binary search; long jumps, as a conditional one reaches no further than 255. */
function search(among: readonly Range[]): Instruction[] {
  if (among.length === 1) return [...among[0].body]
  const middle = among.length >> 1
  const below = search(among.slice(0, middle))
  const above = search(among.slice(middle))
  return [
    [BPF_JMP_JGE_K, 0, 1, among[middle].first],
    [BPF_JMP_JA, 0, 0, below.length],
    ...below,
    ...above,
  ]
}

function encode(program: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(program.length * SOCK_FILTER_LENGTH)
  const view = new DataView(bytes.buffer)
  program.forEach(([code, whenTrue, whenFalse, k], index) => {
    const at = index * SOCK_FILTER_LENGTH
    view.setUint16(at, code, true)
    view.setUint8(at + 2, whenTrue)
    view.setUint8(at + 3, whenFalse)
    view.setUint32(at + 4, k >>> 0, true)
  })
  return bytes
}
