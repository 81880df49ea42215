/** framepump doctor: what this machine offers; each finding with its mend. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { SECCOMP_GET_ACTION_AVAIL, SECCOMP_RET_ERRNO } from '../abi/seccomp.ts'
import { errnoName, FramepumpError } from '../errors.ts'
import { cheaperAio } from '../io/measure.ts'
import { cheaperTier, probeTiers } from '../io/probe.ts'
import { EventSignals } from '../native/event-signals.ts'
import { shim, shimFailure, shimPath } from '../native/shim.ts'
import { listLinks } from '../port/tap/link.ts'
import { printableJson } from '../switch/printable.ts'
import { formatTable } from './table.ts'

interface Finding {
  readonly subject: string
  readonly isGood: boolean
  readonly detail: string
  /** What to do; empty when nothing is wrong. */
  readonly mend: string
}

export async function doctor(options: { readonly json?: boolean }): Promise<number> {
  const hasShim = shimFailure === undefined
  const findings = [
    nativeShim(),
    ...(hasShim ? [tunNode()] : []),
    capabilities(),
    ...(hasShim ? tiers() : []),
    hugePages(),
    ...(hasShim ? [aio(), systemCallFilter()] : []),
    limit('Max open files', 4096, 'ulimit -n 20000, or LimitNOFILE= in the unit'),
    limit('Max locked memory', 0, ''),
    ...programs(),
    ...(hasShim ? downTaps() : []),
  ]
  if (options.json === true) {
    process.stdout.write(`${printableJson(findings, 2)}\n`)
  } else {
    const rows = findings.map((finding) => [
      finding.isGood ? 'ok' : 'NO',
      finding.subject,
      finding.detail,
      finding.mend,
    ])
    process.stdout.write(`${formatTable(['', 'WHAT', 'FOUND', 'MEND'], rows)}\n`)
  }
  return Promise.resolve(0)
}

const good = (subject: string, detail: string): Finding => ({
  subject,
  isGood: true,
  detail,
  mend: '',
})
const bad = (subject: string, detail: string, mend: string): Finding => ({
  subject,
  isGood: false,
  detail,
  mend,
})

/** What can be asked through it only is left out when there is none. */
function nativeShim(): Finding {
  if (shimFailure === undefined) return good('native shim', shimPath)
  return bad('native shim', shimFailure.message, shimFailure.hint ?? '')
}

const TUN_NODE = '/dev/net/tun'

function tunNode(): Finding {
  const O_CLOEXEC = 0o2000000
  const fd = shim.open(TUN_NODE, constants.O_RDWR | O_CLOEXEC)
  if (fd >= 0) {
    shim.close(fd)
    return good('tun', `${TUN_NODE} opens`)
  }
  const mend = existsSync(TUN_NODE)
    ? `chmod 0666 ${TUN_NODE}, or pass the device into the container`
    : 'modprobe tun; mkdir -p /dev/net && mknod /dev/net/tun c 10 200'
  return bad('tun', `${TUN_NODE}: ${errnoName(fd)}`, mend)
}

const CAPABILITIES: readonly (readonly [string, number, string])[] = [
  ['CAP_NET_ADMIN', 12, 'run as root, or use a persistent TAP owned by this user'],
  ['CAP_SYS_ADMIN', 21, 'needed for netns= only: run as root, or open in your own namespace'],
]

function capabilities(): Finding {
  const status = readFileSync('/proc/self/status', 'utf8')
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  const missing = CAPABILITIES.filter(([, bit]) => (effective & (1n << BigInt(bit))) === 0n)
  if (missing.length === 0)
    return good('capabilities', CAPABILITIES.map(([name]) => name).join(' '))
  return bad(
    'capabilities',
    `without ${missing.map(([name]) => name).join(', ')}`,
    missing.map(([, , mend]) => mend).join('; '),
  )
}

function tiers(): Finding[] {
  const probes = probeTiers()
  const auto = cheaperTier(probes).name
  return probes.map(({ name, reason, writeNs }) => {
    if (reason !== undefined) {
      return bad(
        `io ${name}`,
        reason,
        'Linux 6.7 or newer; in a container allow the io_uring calls',
      )
    }
    const cost = writeNs === undefined ? '' : `, ${writeNs} ns a write`
    return good(`io ${name}`, `available${cost}${name === auto ? ', used by --io auto' : ''}`)
  })
}

function hugePages(): Finding {
  const memory = readFileSync('/proc/meminfo', 'utf8')
  const field = (name: string): string =>
    new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(memory)?.[1] ?? '?'
  return good(
    'huge pages',
    `${field('HugePages_Free')} of ${field('HugePages_Total')} free, ${field('Hugepagesize')} kB each`,
  )
}

function aio(): Finding {
  const signals = EventSignals.open()
  signals.close()
  if (signals.neverWaits) {
    const isWorth = cheaperAio()
    isWorth?.close()
    const use = isWorth === null ? 'not worth it' : 'used'
    return good('aio', `signals to guests never wait; for bursts of the tier read-write ${use}`)
  }
  return bad(
    'aio',
    `io_setup: ${errnoName(signals.context)}; a hostile guest can hold the switch up`,
    'sysctl fs.aio-max-nr=65536; in a container allow the io_setup, io_submit, io_getevents and io_destroy calls',
  )
}

function systemCallFilter(): Finding {
  const action = new Uint8Array(Uint32Array.of(SECCOMP_RET_ERRNO).buffer)
  const result = shim.seccomp(SECCOMP_GET_ACTION_AVAIL, 0, action)
  if (result >= 0) return good('seccomp', 'filters of system calls')
  return bad(
    'seccomp',
    `seccomp: ${errnoName(result)}; a daemon that is taken over can do what its user can`,
    'a kernel with CONFIG_SECCOMP_FILTER; in a sandbox allow the seccomp call',
  )
}

function limit(name: string, least: number, mend: string): Finding {
  const limits = readFileSync('/proc/self/limits', 'utf8')
  const soft = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(limits)?.[1] ?? '?'
  const subject = name.toLowerCase()
  const isEnough = soft === 'unlimited' || Number(soft) >= least
  return isEnough ? good(subject, soft) : bad(subject, soft, mend)
}

const PROGRAMS: readonly (readonly [string, string])[] = [
  ['ip', 'apt-get install iproute2 (the demo needs it)'],
  ['ping', 'apt-get install iputils-ping (the demo needs it)'],
  ['unshare', 'apt-get install util-linux (the demo needs it)'],
]

function programs(): Finding[] {
  return PROGRAMS.map(([name, mend]) => {
    const path = findProgram(name)
    return path === undefined ? bad(name, 'not found', mend) : good(name, path)
  })
}

/** The path of a program that can be run, undefined when there is none. */
export function findProgram(name: string): string | undefined {
  const directories = (process.env['PATH'] ?? '').split(delimiter)
  return [...directories, '/usr/sbin', '/sbin']
    .map((directory) => join(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

/** TAPs of this namespace that are administratively down: nothing will flow through them. */
function downTaps(): Finding[] {
  try {
    return listLinks(shim, -1)
      .filter(({ kind }) => kind === 'tun')
      .map(({ ifname, isUp }) =>
        isUp
          ? good(`tap ${ifname}`, 'up')
          : bad(`tap ${ifname}`, 'is down', `ip link set ${ifname} up`),
      )
  } catch (error) {
    if (!(error instanceof FramepumpError)) throw error
    return [bad('taps', error.message, '')]
  }
}
