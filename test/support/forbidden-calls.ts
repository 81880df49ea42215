/**
 * System calls that a running switch is refused, with arguments that do nothing where they are not:
 * null and bad pointers, descriptors that do not exist, numbers out of range.
 */
import { SYSCALLS, SYSCALL_COLUMN } from '../../src/abi/syscalls.ts'

export type Call = readonly [string, number, ...number[]]

const BAD = 1
const NO_FD = -1
const CLONE_NEWUSER = 0x10000000
const CLONE_FS = 0x200

const ARGUMENTS: readonly (readonly [string, ...number[]])[] = [
  ['ptrace', 1, 0, 0, 0],
  ['process_vm_readv', -1, 0, 0, 0, 0, 0],
  ['process_vm_writev', -1, 0, 0, 0, 0, 0],
  ['process_madvise', NO_FD, 0, 0, 0, 0],
  ['kcmp', -1, -1, 0, 0, 0],
  ['pidfd_getfd', NO_FD, 0, 0],
  ['pidfd_open', 1, 0],
  ['mount', BAD, BAD, 0, 0, 0],
  ['umount2', BAD, 0],
  ['pivot_root', BAD, BAD],
  ['move_mount', NO_FD, BAD, NO_FD, BAD, 0],
  ['open_tree', NO_FD, BAD, 0],
  ['fsopen', BAD, 0],
  ['fsconfig', NO_FD, 0, 0, 0, 0],
  ['fsmount', NO_FD, 0, 0],
  ['fspick', NO_FD, BAD, 0],
  ['mount_setattr', NO_FD, BAD, 0, BAD, 0],
  ['chroot', BAD],
  ['unshare', CLONE_NEWUSER],
  ['setns', NO_FD, 0],
  ['clone', CLONE_NEWUSER | CLONE_FS, 0, 0, 0, 0],
  ['clone3', 0, 0],
  ['execve', BAD, 0, 0],
  ['execveat', NO_FD, BAD, 0, 0, 0],
  ['bpf', -1, 0, 0],
  ['perf_event_open', BAD, 0, 0, NO_FD, 0],
  ['userfaultfd', -1],
  ['fanotify_init', -1, 0],
  ['init_module', BAD, 0, BAD],
  ['finit_module', NO_FD, BAD, 0],
  ['delete_module', BAD, 0],
  ['kexec_load', 0, 0, 0, -1],
  ['add_key', BAD, BAD, 0, 0, 0],
  ['request_key', BAD, BAD, 0, 0],
  ['keyctl', -1, 0, 0, 0, 0],
  ['reboot', 0, 0, 0, 0],
  ['swapon', BAD, 0],
  ['swapoff', BAD],
  ['acct', BAD],
  ['quotactl', -1, 0, 0, 0],
  ['syslog', -1, 0, 0],
  ['settimeofday', BAD, 0],
  ['clock_settime', 999, BAD],
  ['adjtimex', BAD],
  ['clock_adjtime', 0, BAD],
  ['sethostname', BAD, -1],
  ['setdomainname', BAD, -1],
  ['iopl', 99],
  ['ioperm', -1, 1, 1],
  ['modify_ldt', 99, 0, 0],
  ['personality', 0],
  ['name_to_handle_at', NO_FD, BAD, BAD, BAD, 0],
  ['open_by_handle_at', NO_FD, BAD, 0],
  ['mknodat', NO_FD, BAD, 0, 0],
  ['io_uring_setup', 0, 0],
  ['mbind', 0, 0, 99, 0, 0, 0],
  ['move_pages', 0, 0, 0, 0, 0, 99],
  ['vmsplice', NO_FD, 0, 0, 0],
  ['setresuid', -1, -1, -1],
  ['setgroups', -1, 0],
  ['kill', 1, 0],
  ['kill', 0, 0],
  ['tkill', 1, 0],
  ['tgkill', 1, 1, 0],
  ['rt_sigqueueinfo', 1, 0, BAD],
  // AF_INET, AF_INET6, NETLINK_KOBJECT_UEVENT, AF_PACKET, AF_ALG, AF_VSOCK
  ['socket', 2, 1, 0],
  ['socket', 10, 2, 0],
  ['socket', 16, 3, 15],
  ['socket', 17, 3, 0],
  ['socket', 38, 5, 0],
  ['socket', 40, 1, 0],
  ['socketpair', 2, 1, 0, 0],
  ['ioctl', NO_FD, 0x5412, 0],
  ['prctl', 4, 1, 0, 0, 0],
  ['prlimit64', 1, 7, 0, 0],
]

/** Those that this architecture has. */
export function forbiddenCalls(): Call[] {
  const column = SYSCALL_COLUMN[process.arch]!
  return ARGUMENTS.flatMap(([name, ...args]) => {
    const number = SYSCALLS[name][column]
    return number === null ? [] : [[`${name}(${args.join(', ')})`, number, ...args] as const]
  })
}
