/** Capabilities and prctl(2). linux/capability.h, linux/prctl.h (6.18). */

/** By number, in the spelling of the config. */
export const CAPABILITY_NAMES: readonly string[] = (
  'chown dac-override dac-read-search fowner fsetid kill setgid setuid setpcap linux-immutable ' +
  'net-bind-service net-broadcast net-admin net-raw ipc-lock ipc-owner sys-module sys-rawio ' +
  'sys-chroot sys-ptrace sys-pacct sys-admin sys-boot sys-nice sys-resource sys-time ' +
  'sys-tty-config mknod lease audit-write audit-control setfcap mac-override mac-admin syslog ' +
  'wake-alarm block-suspend audit-read perfmon bpf checkpoint-restore'
).split(' ')

export const PR_SET_DUMPABLE = 4
export const PR_SET_KEEPCAPS = 8
export const PR_CAPBSET_READ = 23
export const PR_CAPBSET_DROP = 24
export const PR_SET_NO_NEW_PRIVS = 38
export const PR_CAP_AMBIENT = 47
export const PR_CAP_AMBIENT_RAISE = 2
export const PR_CAP_AMBIENT_CLEAR_ALL = 4
