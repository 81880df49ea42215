/** What a session of ERSPAN may be, before anything of it is opened. */
import { isIPv4, isIPv6 } from 'node:net'
import { parseIpPrefix } from '../schema/ip-prefix.ts'

type Range = readonly [number, number]

const VERSIONS: Range = [1, 2]
const SESSIONS: Range = [0, 1023]
const INDEXES: Range = [0, 0xf_ffff]
const HARDWARE_IDS: Range = [0, 63]
const KEYS: Range = [0, 0xffff_ffff]

/** Where the copies of a mirror go. */
export interface ErspanOptions {
  /** IPv4 or IPv6. */
  readonly remoteIp: string
  /** 1: type II, the default; 2: type III. */
  readonly version?: 1 | 2
  /** 0..1023. */
  readonly sessionId: number
  /** Type II: where the copies come from, 0..1048575; default 0. */
  readonly index?: number
  /** Type III: the side of the switch that the copies are said to be of; default `ingress`. */
  readonly direction?: 'ingress' | 'egress'
  /** Type III: number of an engine of this host, 0..63; default 0. */
  readonly hwid?: number
  /** Of GRE, 32 bits; absent: none. */
  readonly key?: number
}

/** 4 or 16 bytes; undefined: it is no address of a host. */
export function ipAddress(text: string): Uint8Array | undefined {
  if (!isIPv4(text) && !isIPv6(text)) return undefined
  const words = parseIpPrefix(text)?.address
  if (words === undefined) return undefined
  const bytes = new Uint8Array(4 * words.length)
  const view = new DataView(bytes.buffer)
  words.forEach((word, at) => view.setInt32(4 * at, word))
  return bytes
}

/** What is wrong with it. */
export function erspanFault(options: ErspanOptions | undefined): string | undefined {
  if (options === undefined) return undefined
  const { remoteIp, version = 1, sessionId, index, direction, hwid, key } = options
  const address = ipAddress(remoteIp)
  if (address === undefined) return `erspan: "${remoteIp}" is no address of IPv4 or IPv6`
  if (isNoHost(address)) return `erspan: ${remoteIp} is no address of one host`
  const wrong =
    outOfRange('version', version, VERSIONS) ??
    outOfRange('session-id', sessionId, SESSIONS) ??
    outOfRange('index', index, INDEXES) ??
    outOfRange('hwid', hwid, HARDWARE_IDS) ??
    outOfRange('key', key, KEYS)
  if (wrong !== undefined) return `erspan: ${wrong}`
  if (version === 2 && index !== undefined) return 'erspan: index is of type II, version 1'
  if (version === 1 && (direction ?? hwid) !== undefined) {
    return 'erspan: direction and hwid are of type III, version 2'
  }
  return undefined
}

/** Group, all stations, or none at all. */
function isNoHost(address: Uint8Array): boolean {
  const isIpv4 = address.length === 4
  const isGroup = isIpv4 ? address[0] >= 224 : address[0] === 0xff
  return isGroup || address.every((byte) => byte === 0)
}

/** Frames of both would be numbered in one row. */
export function isSameSession(
  one: ErspanOptions | undefined,
  other: ErspanOptions | undefined,
): boolean {
  if (one === undefined || other === undefined || one.sessionId !== other.sessionId) return false
  const [address, others] = [ipAddress(one.remoteIp)!, ipAddress(other.remoteIp)!]
  return address.join() === others.join()
}

export function outOfRange(
  name: string,
  value: number | undefined,
  [least, most]: Range,
): string | undefined {
  if (value === undefined) return undefined
  const isRight = Number.isInteger(value) && value >= least && value <= most
  return isRight ? undefined : `${name} must be ${least} to ${most}`
}
