/**
 * A Linux guest in QEMU whose NIC is a vhost-user front-end. Its kernel is Debian's cloud kernel as
 * test/setup-debian.sh unpacks it, its root an initramfs made here of busybox, ethtool and the virtio
 * modules. ttyS0 is the kernel's log (a file in the lab), ttyS1 carries the commands of the test:
 *
 *     test -- stdin/stdout of QEMU -- ttyS1 -- a shell in the guest, one line in, output and status out
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { ControlClient } from '../../src/control/client.ts'
import type { Lab } from './lab.ts'
import { compiledTool } from './lab.ts'
import type { Background } from './processes.ts'
import { isListening, sh, until, words } from './processes.ts'

const UNPACKED = process.env['FRAMEPUMP_GUEST_DIR'] ?? '/opt/framepump-guest'
/** `kvm` is faster where it works; software emulation works everywhere. */
const ACCELERATOR = process.env['FRAMEPUMP_TEST_ACCEL'] ?? 'tcg'
/** Booting takes 3 s on an idle machine; two guests on a loaded one take their time. */
const BOOT_MS = 120_000
const COMMAND_MS = 60_000
const PING_ROUNDS = 5
/** The receive buffer of the guest's terminal. */
const COMMAND_LENGTH_MAX = 4000

/** In the order of their dependencies. */
const MODULES = [
  'net/core/failover',
  'drivers/net/net_failover',
  'drivers/virtio/virtio_ring',
  'drivers/virtio/virtio',
  'drivers/virtio/virtio_pci_modern_dev',
  'drivers/virtio/virtio_pci_legacy_dev',
  'drivers/virtio/virtio_pci',
  'drivers/net/virtio_net',
  'net/llc/llc',
  'net/802/stp',
  'net/802/garp',
  'net/802/mrp',
  'net/8021q/8021q',
  'net/bridge/bridge',
]
const READY = 'guest: ready'

// A command's line is a marker, a blank, and the command. It gets a shell of its own.
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in ${MODULES.map((module) => basename(module)).join(' ')}; do
  insmod /modules/$module.ko
done
[ ! -e /proc/sys/net/ipv6 ] || echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6 >/dev/null
ip link set lo up
for word in $(cat /proc/cmdline); do
  case $word in
    guest.address=*) ip addr add "\${word#*=}" dev eth0 && ip link set eth0 up ;;
  esac
done
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
[ -e /sys/class/net/eth0 ] && echo "${READY}" >&3
# Not in this process: the end of whatever is left in the background would end its read of a line.
while IFS= read -r line <&3; do
  ( eval "\${line#* }" ) </dev/null >&3 2>&1 3<&-
  printf '\\n%s %s\\n' "\${line%% *}" $? >&3
done &
while :; do sleep 3600; done
`

export interface NicOptions {
  /** The vhost-user socket. */
  readonly socket: string
  readonly mac: string
  /** More properties of the NIC: `guest_tso4=off`. */
  readonly device?: string
  /** The socket is QEMU's, for frames behind their length in four bytes, and no vhost-user socket. */
  readonly isStream?: true
}

export interface GuestOptions extends NicOptions {
  /** QEMU listens on the socket, waits for somebody, and listens again after each end. */
  readonly server?: boolean
  /** As client: QEMU connects again after the socket's end. */
  readonly reconnect?: boolean
  /** Address of eth0 with its prefix length; it is set at each boot. */
  readonly address: string
  /** Queue pairs of the NIC; 1. */
  readonly queues?: number
  /** CPUs of the guest; as many as queue pairs. */
  readonly cpus?: number
  readonly memoryMb?: number
  /** eth1, eth2 ..., with one queue pair each and no address. */
  readonly moreNics?: readonly NicOptions[]
  /** Waits for a migration on this Unix socket instead of booting. */
  readonly incoming?: string
  /** Does not run until `cont`, also after a migration. */
  readonly isPaused?: boolean
}

export class Guest {
  readonly process: Background
  readonly #log: string
  readonly #monitor: string
  #qmp: ControlClient | undefined
  #commands = 0

  constructor(process: Background, log: string, monitor: string) {
    this.process = process
    this.#log = log
    this.#monitor = monitor
  }

  /** Ends with QEMU. */
  get exited(): Promise<number> {
    return this.process.exited
  }

  get #boots(): number {
    return this.process.stdout.split(`${READY}\n`).length - 1
  }

  /** Resolves when the guest has booted that many times. */
  async booted(times = 1): Promise<void> {
    await this.#wait('the guest has booted', () => this.#boots >= times, BOOT_MS)
  }

  /** Runs a command line in the guest. What it leaves in the background must not keep its output. */
  async run(command: string, timeoutMs = COMMAND_MS): Promise<{ status: number; output: string }> {
    const marker = `end-${process.pid}-${this.#commands++}-${this.process.stdout.length}`
    const line = `${marker} ${command}\n`
    if (line.length > COMMAND_LENGTH_MAX || command.includes('\n')) {
      throw new Error('a command is one line of less than 4000 bytes')
    }
    const start = this.process.stdout.length
    const end = new RegExp(`\\n${marker} (\\d+)\\n`)
    let found: RegExpExecArray | null = null
    this.process.child.stdin!.write(line)
    await this.#wait(
      `the guest has run ${command}`,
      () => (found = end.exec(this.process.stdout.slice(start))) !== null,
      timeoutMs,
    )
    const { index, 1: status } = found!
    return { status: Number(status), output: this.process.stdout.slice(start, start + index) }
  }

  /** The output of a command that must succeed. */
  async output(command: string, timeoutMs = COMMAND_MS): Promise<string> {
    const { status, output } = await this.run(command, timeoutMs)
    if (status !== 0) throw new Error(`in the guest: ${command}: status ${status}: ${output}`)
    return output
  }

  /**
   * Pings; returns how many of `pings` were answered. For the last one busybox waits a second: when those at the end
   * are missing, and no other, it is asked again. One alone mostly asks whether there is an answer yet.
   */
  async ping(address: string, pings = 3): Promise<number> {
    for (let rounds = 1; ; rounds++) {
      const { output } = await this.run(`ping -c ${pings} -W 2 ${address}`)
      const answered = new Set([...output.matchAll(/seq=(\d+) ttl/g)].map(([, n]) => Number(n)))
      const isLate = [...answered].every((number) => number < answered.size)
      const isOver = pings === 1 || rounds === PING_ROUNDS || answered.size === pings
      if (isOver || !isLate) return answered.size
    }
  }

  /** Restarts the machine from within; resolves when it is up again. */
  async reboot(): Promise<void> {
    const boots = this.#boots
    this.process.child.stdin!.write('reboot reboot -f\n')
    await this.booted(boots + 1)
  }

  /** One command to QEMU's monitor. */
  async qmp<T = unknown>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    if (this.#qmp === undefined) {
      await this.#wait('QEMU has a monitor', () => isListening(this.#monitor), BOOT_MS)
      this.#qmp = await ControlClient.connect(this.#monitor)
    }
    return (await this.#qmp.execute(command, args)) as T
  }

  /** Ends QEMU at once, as a crash would. */
  async kill(): Promise<void> {
    await this.process.stop('SIGKILL')
  }

  async #wait(what: string, condition: () => boolean, timeoutMs: number): Promise<void> {
    try {
      await until(what, () => condition() || !this.process.isRunning, timeoutMs)
      if (condition()) return
      throw new Error(`QEMU ended (${await this.exited}) before ${what}`)
    } catch (error) {
      const log = existsSync(this.#log) ? readFileSync(this.#log, 'utf8').slice(-2000) : ''
      throw new Error(`${(error as Error).message}\n${this.process.stderr}${log}`, { cause: error })
    }
  }
}

let count = 0

/** Starts QEMU; the guest boots by itself. */
export function startGuest(lab: Lab, options: GuestOptions): Guest {
  const queues = options.queues ?? 1
  const memory = `${options.memoryMb ?? 192}M`
  const mode = options.server === true ? ',server=on' : options.reconnect ? ',reconnect=1' : ''
  const log = join(lab.directory, `guest-${count}.log`)
  const monitor = join(lab.directory, `guest-${count++}.qmp`)
  const { kernel, initramfs } = guestImage(lab)
  const process = lab.background('setpriv', [
    // Also when this process is killed no QEMU stays.
    ...words('--pdeathsig KILL qemu-system-x86_64'),
    ...words(`-machine q35,accel=${ACCELERATOR} -nodefaults -display none`),
    ...words(`-smp ${options.cpus ?? queues} -m ${memory}`),
    ...words(`-object memory-backend-memfd,id=mem,size=${memory},share=on -numa node,memdev=mem`),
    ...words(`-kernel ${kernel} -initrd ${initramfs}`),
    '-append',
    `console=ttyS0 quiet panic=-1 nokaslr guest.address=${options.address}`,
    ...words(`-serial file:${log} -chardev stdio,id=shell,signal=off -serial chardev:shell`),
    ...words(`-qmp unix:${monitor},server=on,wait=off`),
    ...nicArguments(0, options, queues, mode),
    ...(options.moreNics ?? []).flatMap((nic, k) => nicArguments(k + 1, nic, 1, '')),
    ...(options.isPaused === true ? ['-S'] : []),
    ...(options.incoming === undefined ? [] : ['-incoming', `unix:${options.incoming}`]),
  ])
  return new Guest(process, log, monitor)
}

function nicArguments(k: number, nic: NicOptions, queues: number, mode: string): string[] {
  const device = [
    `virtio-net-pci,netdev=n${k},id=nic${k},mac=${nic.mac},mq=on,romfile=`,
    // QEMU 7.2 in software emulation dies when the guest touches an MSI-X vector of a running vhost
    // device (it looks for KVM's routes): the guest then has INTx.
    `vectors=${ACCELERATOR === 'kvm' ? 2 * queues + 2 : 0}`,
    ...(nic.device === undefined ? [] : [nic.device]),
  ]
  const stream = `-netdev stream,id=n${k},server=on,addr.type=unix,addr.path=${nic.socket}`
  const vhost = `-chardev socket,id=c${k},path=${nic.socket}${mode} -netdev vhost-user,id=n${k},chardev=c${k},queues=${queues}`
  return [...words(nic.isStream === true ? stream : vhost), ...words(`-device ${device.join(',')}`)]
}

/** A guest that has booted. */
export async function bootGuest(lab: Lab, options: GuestOptions): Promise<Guest> {
  const guest = startGuest(lab, options)
  await guest.booted()
  return guest
}

const images = new WeakMap<Lab, { kernel: string; initramfs: string }>()

/** The initramfs, made once per lab, and the kernel that fits its modules. */
function guestImage(lab: Lab): { kernel: string; initramfs: string } {
  const made = images.get(lab)
  if (made !== undefined) return made
  const boot = join(UNPACKED, 'boot')
  const name = existsSync(boot)
    ? readdirSync(boot).find((file) => file.startsWith('vmlinuz-'))
    : undefined
  if (name === undefined) throw new Error(`no kernel in ${boot}: run test/setup-debian.sh`)
  const release = name.slice('vmlinuz-'.length)
  const initramfs = join(lab.directory, 'initramfs')
  const root = join(lab.directory, 'initramfs-root')
  for (const folder of ['bin', 'dev', 'proc', 'sys', 'tmp', 'modules']) {
    mkdirSync(join(root, folder), { recursive: true })
  }
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  for (const module of MODULES) {
    const file = join(UNPACKED, 'lib/modules', release, 'kernel', `${module}.ko`)
    copyFileSync(file, join(root, 'modules', basename(file)))
  }
  const tools = (['udp-gso', 'numbered-udp'] as const).map(compiledTool)
  for (const program of ['/usr/sbin/ethtool', '/usr/sbin/bridge', ...tools]) {
    copyWithLibraries(program, root)
  }
  writeFileSync(join(root, 'init'), INIT)
  chmodSync(join(root, 'init'), 0o755)
  sh('sh', '-c', `cd "${root}" && find . | cpio --quiet -o -H newc -R 0:0 >"${initramfs}"`)
  const image = { kernel: join(boot, name), initramfs }
  images.set(lab, image)
  return image
}

/** Copies a program of this machine and the libraries it is linked with, at the paths it expects. */
function copyWithLibraries(program: string, root: string): void {
  const libraries = sh('ldd', program).match(/\/\S+/g) ?? []
  for (const file of libraries) {
    mkdirSync(join(root, dirname(file)), { recursive: true })
    copyFileSync(file, join(root, file))
  }
  copyFileSync(program, join(root, 'bin', basename(program)))
}
