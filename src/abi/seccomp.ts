/** seccomp(2) and classic BPF. linux/seccomp.h, linux/bpf_common.h, linux/audit.h. */

export const SECCOMP_SET_MODE_FILTER = 1
export const SECCOMP_GET_ACTION_AVAIL = 2
/** All threads of the process get the filter, and no_new_privs with it, or none does. */
export const SECCOMP_FILTER_FLAG_TSYNC = 1
/** Leaves speculation as it is: before Linux 5.16 a filter slows the whole process down. */
export const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

export const SECCOMP_RET_ALLOW = 0x7fff0000
/** The low 16 bits are the errno. */
export const SECCOMP_RET_ERRNO = 0x00050000

/** struct seccomp_data: u32 nr, u32 arch, u64 instruction_pointer, u64 args[6]; little-endian. */
export const SECCOMP_DATA_NR = 0
export const SECCOMP_DATA_ARCH = 4
export const SECCOMP_DATA_ARGS = 16

/** AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64, by process.arch. */
export const AUDIT_ARCH: Readonly<Record<string, number | undefined>> = {
  x64: 0xc000003e,
  arm64: 0xc00000b7,
}

/** struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. */
export const SOCK_FILTER_LENGTH = 8
export const BPF_LD_W_ABS = 0x20
export const BPF_JMP_JA = 0x05
export const BPF_JMP_JEQ_K = 0x15
export const BPF_JMP_JGE_K = 0x35
export const BPF_JMP_JSET_K = 0x45
export const BPF_RET_K = 0x06
