/** What texts must look like that are more than texts: names of interfaces, paths of sockets, lists. */
import { IFNAME_LENGTH_MAX } from '../abi/if-tun.ts'
import { counted } from '../text.ts'
import { IP_PATTERN, IPS_PATTERN, parseIpPrefix, splitIpPrefixes } from './ip-prefix.ts'

/** Why a text is refused; the hint says what to write. */
export interface Refusal {
  readonly message: string
  readonly hint?: string
}

export interface Format {
  /** For people, in a table. */
  readonly name: string
  /** What of it a JSON Schema can say: it knows no bytes. */
  readonly pattern: string
  readonly lengthMax?: number
  /** `key`: the option's name. Undefined: it is such a text. */
  refuse(text: string, key: string): Refusal | undefined
  /** Numbers that stand for such a text; absent: any, if the text `1` is one. */
  readonly numbers?: readonly [number, number]
  /** Those that stand behind one another in an option string; absent: it is split at `:`. */
  split?(text: string): readonly string[]
  /** Of such a text of several; absent: `pattern`, with `:` between them. */
  readonly listPattern?: string
}

/** sizeof sun_path, less its end. */
const SOCKET_PATH_MAX = 107
/** Descriptors that one option may list. */
const FDS_MAX = 1024
const ID_SYNTAX = /^[A-Za-z][-A-Za-z0-9._]{0,62}$/

export type FormatName =
  | 'id'
  | 'ifname'
  | 'ifname-of-one'
  | 'socket-path'
  | 'descriptors'
  | 'vlans'
  | 'mac'
  | 'octet'
  | 'ip'

const VID_SYNTAX = '(?:[0-9]{1,3}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-5])'
const VLANS_SYNTAX: RegExp = new RegExp(`^(${VID_SYNTAX})(?:-(${VID_SYNTAX}))?$`)
/** With `:` or with `-` between octets. */
const MAC_SYNTAX = /^[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})$/
/** What may be a sender's: no group's, and not all zeros. */
const SENDER_SYNTAX =
  /^(?!00([:-]00){5}$)[0-9A-Fa-f][02468ACEace](?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})$/
const OCTET_SYNTAX = /^0?[0-9A-Fa-f]$/

/** First and last VID of `10` or `20-30`; undefined: it is neither. */
export function vlanRange(text: string): readonly [number, number] | undefined {
  const parts = VLANS_SYNTAX.exec(text)
  if (parts === null) return undefined
  const first = Number(parts[1])
  const last = Number(parts[2] ?? parts[1])
  return first <= last ? [first, last] : undefined
}

export const FORMATS: Readonly<Record<FormatName, Format>> = {
  id: {
    name: 'letters, digits, `-._`, a letter first, at most 63',
    pattern: ID_SYNTAX.source,
    refuse: (text) =>
      ID_SYNTAX.test(text)
        ? undefined
        : {
            message: `"${text}" is not an id`,
            hint: 'letters, digits, "-", "." and "_", a letter first, at most 63',
          },
  },
  /** `%d` is where the kernel puts a number. */
  ifname: {
    name: 'interface name, may contain `%d`',
    pattern: '^(?!\\.\\.?$)[^\\s/:%\\u0000]*(%d)?[^\\s/:%\\u0000]*$',
    lengthMax: IFNAME_LENGTH_MAX,
    refuse: (text) => (text === '' ? undefined : refuseIfname(text)),
  },
  'ifname-of-one': {
    name: 'interface name',
    pattern: '^(?!\\.\\.?$)[^\\s/:%\\u0000]+$',
    lengthMax: IFNAME_LENGTH_MAX,
    refuse: (text, key) => {
      if (text === '') return missing(key, 'the interface, as ifname=eth1')
      return text.includes('%') ? { message: noIfname(text) } : refuseIfname(text)
    },
  },
  'socket-path': {
    name: `path, at most ${SOCKET_PATH_MAX} bytes`,
    pattern: '^[^\\u0000]+$',
    lengthMax: SOCKET_PATH_MAX,
    refuse: (text, key) => {
      if (text === '') return missing(key)
      const bytes = Buffer.byteLength(text)
      if (bytes <= SOCKET_PATH_MAX) return undefined
      const length = counted(bytes, 'byte')
      return { message: `the path is ${length} long, a socket's has at most ${SOCKET_PATH_MAX}` }
    },
  },
  descriptors: {
    name: 'texts split at `:`',
    pattern: `^[^:\\u0000]*(:[^:\\u0000]*){0,${FDS_MAX - 1}}$`,
    refuse: (text, key) =>
      text.split(':').length <= FDS_MAX
        ? undefined
        : { message: `${key}= takes at most ${FDS_MAX} descriptors` },
  },
  vlans: {
    name: 'VIDs and ranges, as `10` and `20-30`',
    pattern: VLANS_SYNTAX.source,
    numbers: [0, 4095],
    refuse: (text, key) =>
      vlanRange(text) === undefined
        ? {
            message: `"${text}" in ${key} is no VID from 0 to 4095, and no range of them`,
            hint: 'as 10, or 20-30',
          }
        : undefined,
  },
  mac: {
    name: 'MAC addresses',
    pattern: SENDER_SYNTAX.source,
    numbers: [1, 0],
    refuse: (text, key) => {
      if (SENDER_SYNTAX.test(text)) return undefined
      const what = MAC_SYNTAX.test(text) ? "no sender's address" : 'not a MAC address'
      return { message: `"${text}" in ${key} is ${what}`, hint: 'as 02:00:00:00:00:01' }
    },
    split: splitMacs,
  },
  ip: {
    name: 'IP addresses and prefixes, as `10.0.0.1` and `fd00::/64`',
    pattern: IP_PATTERN,
    listPattern: IPS_PATTERN,
    numbers: [1, 0],
    refuse: (text, key) =>
      parseIpPrefix(text) === undefined
        ? {
            message: `"${text}" in ${key} is no IP address or prefix`,
            hint: 'as 10.0.0.1, or fd00::/64',
          }
        : undefined,
    split: splitIpPrefixes,
  },
  octet: {
    name: 'last octets, `00` to `0f`',
    pattern: OCTET_SYNTAX.source,
    numbers: [0, 9],
    refuse: (text, key) =>
      OCTET_SYNTAX.test(text)
        ? undefined
        : { message: `"${text}" in ${key} is not an octet from 00 to 0f` },
  },
}

/** Addresses behind one another: six octets each, or one with `-` in it. */
function splitMacs(text: string): readonly string[] {
  const parts = text.split(':')
  const macs: string[] = []
  for (let at = 0; at < parts.length;) {
    const octets = parts[at].includes('-') ? 1 : 6
    macs.push(parts.slice(at, at + octets).join(':'))
    at += octets
  }
  return macs
}

/** An empty name is as good as none. */
export function missing(key: string, hint?: string): Refusal {
  const message = `Parameter '${key}' is missing`
  return hint === undefined ? { message } : { message, hint }
}

const noIfname = (text: string): string => `ifname "${text}" is not an interface name`

/** What the kernel's dev_valid_name refuses, said before it silently cuts the name. */
function refuseIfname(text: string): Refusal | undefined {
  const bytes = Buffer.byteLength(text)
  if (bytes > IFNAME_LENGTH_MAX) {
    const length = counted(bytes, 'byte')
    return { message: `ifname "${text}" is ${length} long, the kernel takes ${IFNAME_LENGTH_MAX}` }
  }
  const rest = text.replace('%d', '')
  if (!/[\s/:%]/.test(rest) && text !== '.' && text !== '..') return undefined
  return { message: noIfname(text), hint: 'no "/", ":", space, one "%d"' }
}

/** What the format that has this pattern says of a text that it refuses, at the end of a path with `/`. */
export function refusal(pattern: string, text: string, path: string): string {
  const key = path.split('/').findLast((part) => !/^[0-9]*$/.test(part)) ?? ''
  const format = Object.values(FORMATS).find((one) => one.pattern === pattern)
  return format?.refuse(text, key)?.message ?? `must match ${pattern}`
}
