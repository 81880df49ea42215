/**
 * What an option of a port may be: one rule for option strings, control commands and config files. Names
 * are QEMU's (qapi/net.json) where QEMU has them.
 */
import { IFNAME_LENGTH_MAX } from '../abi/if-tun.ts'
import { ConfigError } from '../errors.ts'
import { counted } from '../text.ts'

export type OptionKind =
  | 'string'
  | 'boolean'
  /** Decimal integer, `range` inclusive. */
  | 'integer'
  /** Bytes; k, M, G and T multiply by 1024 as in QEMU. */
  | 'size'
  /** A path, or a false boolean which means `no`. */
  | 'script'
  /** One of `values`. */
  | 'choice'

export interface OptionRule {
  readonly kind: OptionKind
  readonly range?: readonly [number, number]
  readonly values?: readonly string[]
}

export type OptionRules = Readonly<Record<string, OptionRule>>

export const ID: OptionRule = { kind: 'string' }
export const GRO: OptionRule = { kind: 'boolean' }
export const MTU: OptionRule = { kind: 'integer', range: [68, 65535] }

/** Where the option of that name stands, as `ports[2].ifname`. */
export type At = (key: string) => string

export const fail = (path: string, message: string, hint?: string): never => {
  throw new ConfigError('BAD_OPTION', message, { path, hint })
}

/** What the kernel's dev_valid_name refuses, said before it silently cuts the name. */
export function checkIfname(ifname: string | undefined, at: At): void {
  if (ifname === undefined || ifname === '') return
  const bytes = Buffer.byteLength(ifname)
  if (bytes > IFNAME_LENGTH_MAX) {
    fail(
      at('ifname'),
      `ifname "${ifname}" is ${counted(bytes, 'byte')} long, the kernel takes ${IFNAME_LENGTH_MAX}`,
    )
  }
  const rest = ifname.replace('%d', '')
  if (/[\s/:%]/.test(rest) || ifname === '.' || ifname === '..') {
    fail(at('ifname'), `ifname "${ifname}" is no interface name`, 'no "/", ":", space, one "%d"')
  }
}
