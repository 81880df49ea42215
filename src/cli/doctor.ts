/** framepump doctor: what this machine offers; each finding with its fix. */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { SECCOMP_GET_ACTION_AVAIL, SECCOMP_RET_ERRNO } from '../abi/seccomp.ts'
import { strerror } from '../abi/strerror.ts'
import { FramepumpError } from '../errors.ts'
import { inMicroseconds } from '../io/choice.ts'
import type { Probe } from '../io/probe.ts'
import { probe } from '../io/probe.ts'
import { EventSignals } from '../native/event-signals.ts'
import { shim, shimFailure, shimPath } from '../native/shim.ts'
import { listLinks } from '../port/interface/link.ts'
import { printableJson } from '../switch/printable.ts'
import { EXIT_FAILED } from './common.ts'
import { LEAST_OPEN_FILES } from './open-files.ts'
import { formatTable } from './table.ts'

interface Finding {
  readonly subject: string
  readonly isGood: boolean
  /** Without it the main job, TAPs on a switch, cannot be done. */
  readonly isRequired: boolean
  /** In words, for people. */
  readonly detail: string
  /** What to do; empty when nothing is wrong. */
  readonly fix: string
  /** What was found, for programs. */
  readonly facts: Facts
}

type Facts = Readonly<Record<string, string | number | boolean | null | readonly string[]>>

export async function doctor(options: { readonly json?: boolean }): Promise<number> {
  const probed = shimFailure === undefined ? probe() : undefined
  const hasShim = probed !== undefined
  const findings = [
    nativeShim(),
    ...(hasShim ? [tunNode()] : []),
    capabilities(),
    ...(hasShim ? tiers(probed) : []),
    hugePages(),
    ...(hasShim ? [aio(probed), systemCallFilter()] : []),
    openFiles(),
    lockedMemory(),
    ...programs(),
    ...(hasShim ? downTaps() : []),
  ]
  if (options.json === true) {
    process.stdout.write(`${printableJson(findings, 2)}\n`)
  } else {
    const rows = findings.map((finding) => [
      finding.isGood ? 'ok' : finding.isRequired ? 'NO' : '-',
      finding.subject,
      finding.detail,
      finding.fix,
    ])
    process.stdout.write(`${formatTable(['', 'WHAT', 'FOUND', 'FIX'], rows)}\n`)
    const isLacking = findings.some(({ isGood, isRequired }) => !isGood && !isRequired)
    if (isLacking)
      process.stdout.write('\n-: missing, and required only for what is said beside it\n')
  }
  const isUsable = findings.every(({ isGood, isRequired }) => isGood || !isRequired)
  return Promise.resolve(isUsable ? 0 : EXIT_FAILED)
}

const good = (subject: string, detail: string, facts: Facts = {}): Finding => ({
  subject,
  isGood: true,
  isRequired: false,
  detail,
  fix: '',
  facts,
})

/** The switch works without it, if not as well or not in all ways. */
const lacking = (subject: string, detail: string, fix: string, facts: Facts = {}): Finding => ({
  subject,
  isGood: false,
  isRequired: false,
  detail,
  fix,
  facts,
})

/** Nothing works without it. */
const missing = (subject: string, detail: string, fix: string, facts: Facts = {}): Finding => ({
  ...lacking(subject, detail, fix, facts),
  isRequired: true,
})

/** What can be asked through it only is left out when there is none. */
function nativeShim(): Finding {
  if (shimFailure === undefined) {
    return { ...good('native shim', shimPath, { path: shimPath }), isRequired: true }
  }
  return missing('native shim', shimFailure.message, shimFailure.hint ?? '')
}

const TUN_NODE = '/dev/net/tun'

function tunNode(): Finding {
  const O_CLOEXEC = 0o2000000
  const fd = shim.open(TUN_NODE, constants.O_RDWR | O_CLOEXEC)
  if (fd >= 0) {
    shim.close(fd)
    return { ...good('tun', `${TUN_NODE} opens`), isRequired: true }
  }
  const fix = existsSync(TUN_NODE)
    ? `chmod 0666 ${TUN_NODE}, or pass the device into the container`
    : 'modprobe tun; mkdir -p /dev/net && mknod /dev/net/tun c 10 200'
  return missing('tun', `${TUN_NODE}: ${strerror(-fd)}`, fix)
}

const CAPABILITIES: readonly (readonly [string, number, string])[] = [
  ['CAP_NET_ADMIN', 12, 'for making TAPs: run as root, or use a persistent one owned by this user'],
  [
    'CAP_NET_RAW',
    13,
    'for raw-socket ports and mirrors by ERSPAN: run as root, or setcap cap_net_raw+ep on node',
  ],
  ['CAP_SYS_ADMIN', 21, 'for netns=: run as root, or open in your own namespace'],
]

function capabilities(): Finding {
  const status = readFileSync('/proc/self/status', 'utf8')
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`)
  const isHeld = ([, bit]: (typeof CAPABILITIES)[number]): boolean =>
    (effective & (1n << BigInt(bit))) !== 0n
  const absent = CAPABILITIES.filter((one) => !isHeld(one))
  const nameOf = ([name]: (typeof CAPABILITIES)[number]): string => name
  const facts = { held: CAPABILITIES.filter(isHeld).map(nameOf), lacking: absent.map(nameOf) }
  if (absent.length === 0) return good('capabilities', facts.held.join(' '), facts)
  const fix = absent.map(([, , text]) => text).join('; ')
  return lacking('capabilities', `without ${facts.lacking.join(', ')}`, fix, facts)
}

function tiers({ tiers: found, auto, why, isAioWorth }: Probe): Finding[] {
  return found.map(({ name, reason, costs }) => {
    const isAuto = name === auto.name
    if (reason !== undefined) {
      const fix = 'Linux 6.7 or newer; in a container allow the io_uring calls'
      return lacking(`io ${name}`, `${reason}; read-write does the same`, fix)
    }
    const way = name === 'read-write' && isAioWorth ? ' by AIO' : ''
    const each =
      costs === undefined ? '' : `, ${inMicroseconds(costs)} a frame of 60 and of 65000 bytes`
    const facts = { shortNs: costs?.shortNs ?? null, longNs: costs?.longNs ?? null, isAuto }
    const use = isAuto ? `, used by --io auto: ${why}` : ''
    return good(`io ${name}`, `available${each}${way}${use}`, isAuto ? { ...facts, why } : facts)
  })
}

function hugePages(): Finding {
  const memory = readFileSync('/proc/meminfo', 'utf8')
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(memory)?.[1] ?? 0)
  const [free, total] = [field('HugePages_Free'), field('HugePages_Total')]
  const sizeKb = field('Hugepagesize')
  if (sizeKb === 0) return good('huge pages', 'this kernel has none, and guests need none')
  const detail = `${free} of ${total} free, ${sizeKb} kB each`
  return good('huge pages', detail, { free, total, sizeBytes: sizeKb * 1024 })
}

function aio({ isAioWorth }: Probe): Finding {
  const signals = EventSignals.open()
  signals.close()
  if (signals.neverWaits) {
    const use = isAioWorth ? 'used' : 'not worth it'
    const detail = `signals to guests never wait; for bursts of the tier read-write ${use}`
    return good('aio', detail, { isUsedForBursts: isAioWorth })
  }
  return lacking(
    'aio',
    `cannot be had (${strerror(-signals.context)}); a hostile guest can hold the switch up`,
    'sysctl fs.aio-max-nr=65536; in a container allow the io_setup, io_submit, io_getevents and io_destroy calls',
  )
}

function systemCallFilter(): Finding {
  const action = new Uint8Array(Uint32Array.of(SECCOMP_RET_ERRNO).buffer)
  const result = shim.seccomp(SECCOMP_GET_ACTION_AVAIL, 0, action)
  if (result >= 0) return good('seccomp', 'filters of system calls')
  return lacking(
    'seccomp',
    `filters cannot be had (${strerror(-result)}); a daemon that is taken over can do what its user can`,
    'a kernel with CONFIG_SECCOMP_FILTER; in a sandbox allow the seccomp call',
  )
}

/** Of 64 vhost-user ports, say. */
const OPEN_FILES_WANTED = 4096

function openFiles(): Finding {
  const soft = softLimit('Max open files')
  const detail = soft === null ? 'unlimited' : `${soft}`
  const fix = 'ulimit -n 20000, or LimitNOFILE= in the unit'
  const facts = { soft }
  if (soft === null || soft >= OPEN_FILES_WANTED) return good('max open files', detail, facts)
  const isTooLow = soft < LEAST_OPEN_FILES
  if (isTooLow) return missing('max open files', detail, fix, facts)
  return lacking('max open files', `${detail}, enough for few ports`, fix, facts)
}

function lockedMemory(): Finding {
  const softBytes = softLimit('Max locked memory')
  return good('max locked memory', softBytes === null ? 'unlimited' : `${softBytes}`, { softBytes })
}

/** null: there is none. */
function softLimit(name: string): number | null {
  const limits = readFileSync('/proc/self/limits', 'utf8')
  const soft = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(limits)?.[1]
  return soft === undefined || soft === 'unlimited' ? null : Number(soft)
}

const PROGRAMS: readonly (readonly [string, string])[] = [
  ['ip', 'apt-get install iproute2 (the demo needs it)'],
  ['ping', 'apt-get install iputils-ping (the demo needs it)'],
  ['unshare', 'apt-get install util-linux (the demo needs it)'],
]

function programs(): Finding[] {
  return PROGRAMS.map(([name, fix]) => {
    const path = findProgram(name)
    return path === undefined ? lacking(name, 'not found', fix) : good(name, path, { path })
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
          ? good(`tap ${ifname}`, 'up', { isUp })
          : lacking(`tap ${ifname}`, 'is down', `ip link set ${ifname} up`, { isUp }),
      )
  } catch (error) {
    if (!(error instanceof FramepumpError)) throw error
    return [lacking('taps', `cannot be listed: ${error.message}`, 'look with: ip link')]
  }
}
