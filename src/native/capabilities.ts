/**
 * Capabilities of threads. They are a thread's own, and a new one has those of its maker: so each
 * worker gives its own up before it does anything, whatever the process keeps (a thread that touches
 * what guests and clients send needs none). capabilities(7)
 */
import { readdirSync, readFileSync } from 'node:fs'
import {
  CAPABILITY_NAMES,
  PR_CAP_AMBIENT,
  PR_CAP_AMBIENT_CLEAR_ALL,
  PR_CAPBSET_DROP,
} from '../abi/capability.ts'
import { shim } from './shim.ts'

const TASKS = '/proc/self/task'

/** What a thread holds, as the kernel tells it. */
export interface ThreadPrivileges {
  readonly id: number
  readonly name: string
  /** Permitted ones. */
  readonly capabilities: readonly string[]
  readonly noNewPrivs: boolean
  /** A filter is in force. */
  readonly seccomp: boolean
}

/** Called by each worker first of all. */
export function dropThreadCapabilities(): void {
  for (let bit = 0; bit < CAPABILITY_NAMES.length; bit++) {
    // Without CAP_SETPCAP they stay; a worker starts no programs.
    if (shim.prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0) break
  }
  // Giving up is always allowed.
  shim.capset(new Int32Array(6))
  shim.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
}

/** All threads of the process; none when /proc is not there. */
export function readThreads(): ThreadPrivileges[] {
  let ids: string[]
  try {
    ids = readdirSync(TASKS)
  } catch {
    return []
  }
  return ids.map((id) => readThread(Number(id))).filter((thread) => thread !== undefined)
}

export function readThread(id: number): ThreadPrivileges | undefined {
  let status: string
  try {
    status = readFileSync(`${TASKS}/${id}/status`, 'utf8')
  } catch {
    // It has ended meanwhile.
    return undefined
  }
  const field = (name: string): string =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '0'
  return {
    id,
    name: field('Name'),
    capabilities: capabilityNames(BigInt(`0x${field('CapPrm')}`)),
    noNewPrivs: field('NoNewPrivs') === '1',
    seccomp: field('Seccomp') === '2',
  }
}

/** Those of the calling thread that it may use. */
export function permittedCapabilities(): bigint {
  const words = new Int32Array(6)
  shim.capget(words)
  return BigInt(words[2] >>> 0) | (BigInt(words[3] >>> 0) << 32n)
}

/** Arguments of capset. */
export function capabilityWords(held: bigint, inheritable: bigint): Int32Array {
  const halves = (set: bigint): number[] => [Number(set & 0xffffffffn) | 0, Number(set >> 32n) | 0]
  return Int32Array.from([...halves(held), ...halves(held), ...halves(inheritable)])
}

export function capabilitySet(names: readonly string[]): bigint {
  return names.reduce((set, name) => set | (1n << BigInt(CAPABILITY_NAMES.indexOf(name))), 0n)
}

/** Those that a later kernel has added go by their number. */
export function capabilityNames(set: bigint): string[] {
  const names: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if ((set & (1n << BigInt(bit))) !== 0n) names.push(CAPABILITY_NAMES[bit] ?? `cap-${bit}`)
  }
  return names
}
