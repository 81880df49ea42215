/** Addresses of IP and prefixes of them, `10.0.0.0/24` and `fd00::1`, as texts. */
import { isIPv4, isIPv6 } from 'node:net'

/** First the address, then the mask, 32 bits each word: one of IPv4, four of IPv6. */
export interface IpPrefix {
  readonly isIpv6: boolean
  readonly address: readonly number[]
  readonly mask: readonly number[]
}

/** Undefined: the text is none. */
export function parseIpPrefix(text: string): IpPrefix | undefined {
  const [address, length, ...more] = text.split('/')
  // The form that ends as in IPv4 is left out: nobody writes addresses of ports so.
  const isIpv6 = isIPv6(address) && !/[%.]/.test(address)
  if ((!isIpv6 && !isIPv4(address)) || more.length > 0) return undefined
  const bits = isIpv6 ? 128 : 32
  if (length !== undefined && !(/^(0|[1-9]\d{0,2})$/.test(length) && Number(length) <= bits))
    return undefined
  return {
    isIpv6,
    address: isIpv6 ? wordsOfIpv6(address) : [wordOfIpv4(address)],
    mask: maskOf(length === undefined ? bits : Number(length), bits),
  }
}

function wordOfIpv4(text: string): number {
  return text.split('.').reduce((word, octet) => (word << 8) | Number(octet), 0)
}

function wordsOfIpv6(text: string): number[] {
  const [before, behind] = text
    .split('::')
    .map((half) => half.split(':').filter((one) => one !== ''))
  const missing = behind === undefined ? 0 : 8 - before.length - behind.length
  const all = [...before, ...Array<string>(missing).fill('0'), ...(behind ?? [])]
  const halves = all.map((one) => Number.parseInt(one, 16))
  return [0, 2, 4, 6].map((at) => (halves[at] << 16) | halves[at + 1])
}

function maskOf(length: number, bits: number): number[] {
  return Array.from({ length: bits / 32 }, (_, word) => {
    const left = Math.min(32, Math.max(0, length - 32 * word))
    return left === 0 ? 0 : -1 << (32 - left)
  })
}

/** What stands behind one another, split at `:`; addresses of IPv6 are in brackets, if there are several. */
export function splitIpPrefixes(text: string): readonly string[] {
  if (parseIpPrefix(text) !== undefined) return [text]
  return text.split(/:(?![^[]*\])/).map((part) => part.replace(/^\[(.*:.*)\](\/\d+)?$/, '$1$2'))
}

/** The inverse. */
export function joinable(text: string): string {
  if (parseIpPrefix(text)?.isIpv6 !== true) return text
  const [address, length] = text.split('/')
  return `[${address}]${length === undefined ? '' : `/${length}`}`
}

const OCTET = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const IPV4: string = `(?:${OCTET}\\.){3}${OCTET}(?:/(?:3[0-2]|[12]?[0-9]))?`
const GROUP = '[0-9A-Fa-f]{1,4}'
const groups = (most: number): string =>
  most === 0 ? '' : `(?:${GROUP}(?::${GROUP}){0,${most - 1}})?`
/** So many groups, then zeros, then no more than are left. */
const SHORTENED: readonly string[] = Array.from(
  { length: 8 },
  (_, count) => `${count === 0 ? '' : `${GROUP}(?::${GROUP}){${count - 1}}`}::${groups(7 - count)}`,
)
const IPV6_ADDRESS: string = `(?:(?:${GROUP}:){7}${GROUP}|${SHORTENED.join('|')})`
const IPV6_LENGTH = '(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?'
const ENTRY: string = `(?:${IPV4}|\\[${IPV6_ADDRESS}\\]${IPV6_LENGTH})`

/** Texts that parseIpPrefix takes, and that splitIpPrefixes makes them of. */
export const IP_PATTERN: string = `^(?:${IPV4}|${IPV6_ADDRESS}${IPV6_LENGTH})$`
export const IPS_PATTERN: string = `^(?:${IPV6_ADDRESS}${IPV6_LENGTH}|${ENTRY}(?::${ENTRY})*)$`
