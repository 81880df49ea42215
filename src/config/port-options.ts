/**
 * From a plain object (option string, control command, config file) to checked PortOptions. Errors
 * are ConfigError with the path of the key.
 */
import { IFNAME_LENGTH_MAX } from '../abi/if-tun.ts'
import { ConfigError, gather, throwGathered } from '../errors.ts'
import type {
  PcapOptions,
  PortOptions,
  RawSocketOptions,
  TapOptions,
  VhostUserOptions,
} from '../port/options.ts'
import { counted, nearest } from '../text.ts'
import type { OptionRule } from './option-table.ts'
import { OPTION_TABLE } from './option-table.ts'

const FDS_MAX = 1024
/** sizeof sun_path, less its end. */
const SOCKET_PATH_MAX = 107
const ID_SYNTAX = /^[A-Za-z][-A-Za-z0-9._]{0,62}$/

const fail = (path: string, message: string, hint?: string): never => {
  throw new ConfigError('BAD_OPTION', message, { path, hint })
}

/**
 * `path` is where the object stands, as `ports[2]`; empty for an option string. Throws every option's
 * error at once; what one says about another is looked at when each by itself is right.
 */
export function portOptionsFromObject(
  object: Readonly<Record<string, unknown>>,
  path: string = '',
): PortOptions {
  const { type } = object
  const at = (key: string): string => (path === '' ? key : `${path}.${key}`)
  if (typeof type !== 'string') {
    return fail(at('type'), `Parameter 'type' is missing`, `it is one of ${typeNames()}`)
  }
  const rules = rulesOf(type, at('type'))
  const options: Record<string, unknown> = { type }
  const errors: ConfigError[] = []
  for (const [key, value] of Object.entries(object)) {
    if (key === 'type' || value === undefined) continue
    gather(errors, () => {
      const rule = Object.hasOwn(rules, key) ? rules[key] : undefined
      if (rule === undefined) return fail(at(key), ...unknownKey(type, key, Object.keys(rules)))
      options[key] = readValue(rule, key, value, at(key))
    })
  }
  // Where its value could not be read, that has been said.
  if ((object['id'] === undefined) === (options['id'] === undefined)) {
    gather(errors, () => validateId(options['id'] as string | undefined, at))
  }
  if (type === 'vhost-user' && object['path'] === undefined) gather(errors, () => noPath(at))
  throwGathered(errors)
  const checked = options as unknown as PortOptions
  validatePortOptions(checked, path)
  return checked
}

/** Whether the option of that port type is a text, whatever it looks like. */
export function isText(type: unknown, key: string): boolean {
  if (typeof type !== 'string' || !Object.hasOwn(OPTION_TABLE, type)) return false
  const rules = OPTION_TABLE[type as keyof typeof OPTION_TABLE]
  return Object.hasOwn(rules, key) && ['string', 'script'].includes(rules[key].kind)
}

function typeNames(): string {
  return Object.keys(OPTION_TABLE).join(', ')
}

function rulesOf(type: string, path: string): Readonly<Record<string, OptionRule>> {
  if (type === 'memory') {
    return fail(path, 'port type "memory" exists in the library API only')
  }
  if (!Object.hasOwn(OPTION_TABLE, type)) {
    return fail(path, `unknown port type "${type}"`, `it is one of ${typeNames()}`)
  }
  return OPTION_TABLE[type as keyof typeof OPTION_TABLE]
}

function unknownKey(type: string, key: string, known: readonly string[]): [string, string] {
  const near = nearest(key, known)
  return [
    `unknown key "${key}" for a ${type} port`,
    near === undefined ? `known are ${known.join(', ')}` : `did you mean "${near}"?`,
  ]
}

const BOOLEANS: Readonly<Record<string, boolean>> = {
  on: true,
  yes: true,
  true: true,
  off: false,
  no: false,
  false: false,
}

function readValue(rule: OptionRule, key: string, value: unknown, path: string): unknown {
  switch (rule.kind) {
    case 'string':
      return readString(key, value, path)
    case 'script':
      if (value === false) return 'no'
      return readString(key, value, path)
    case 'boolean':
      if (typeof value === 'boolean') return value
      if (typeof value === 'string' && Object.hasOwn(BOOLEANS, value)) return BOOLEANS[value]
      return fail(path, `"${key}" must be on or off, not ${JSON.stringify(value)}`)
    case 'choice':
      if (typeof value === 'string' && rule.values!.includes(value)) return value
      return fail(path, `"${key}" must be one of ${rule.values!.join(', ')}`)
    case 'integer':
    case 'size':
      return readNumber(rule, key, value, path)
  }
}

function readString(key: string, value: unknown, path: string): string {
  // A JSON number where a name may be one (uids, fds, pids).
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value)
  if (typeof value !== 'string') {
    const shown = JSON.stringify(value)
    const hint = typeof value === 'object' ? undefined : `write "${shown}" in quotes`
    return fail(path, `"${key}" must be a text, not ${shown}`, hint)
  }
  if (value.includes('\0')) return fail(path, `"${key}" must not contain a zero byte`)
  return value
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
}

function readNumber(rule: OptionRule, key: string, value: unknown, path: string): number {
  let number = Number.NaN
  if (typeof value === 'number') number = value
  else if (typeof value === 'string') {
    const parts = /^(\d+)([A-Za-z]?)$/.exec(value)
    const unit = parts === null ? undefined : SIZE_UNITS[parts[2].toLowerCase()]
    const isUnit = parts !== null && parts[2] !== ''
    if (unit !== undefined && (rule.kind === 'size' || !isUnit)) number = Number(parts![1]) * unit
  }
  const [least, most] = rule.range!
  if (!Number.isInteger(number) || number < least || number > most) {
    return fail(path, `"${key}" must be a number from ${least} to ${most}`)
  }
  return number
}

/** Checks what one option says about another. Throws ConfigError. */
export function validatePortOptions(options: PortOptions, path: string = ''): void {
  const at = (key: string): string => (path === '' ? key : `${path}.${key}`)
  validateId(options.id, at)
  if (options.type === 'tap') validateTap(options, at)
  else if (options.type === 'raw-socket') validateRawSocket(options, at)
  else if (options.type === 'pcap') validatePcap(options, at)
  else if (options.type === 'vhost-user') validateVhostUser(options, at)
}

type At = (key: string) => string

function validateId(id: string | undefined, at: At): void {
  if (id === undefined) return fail(at('id'), `Parameter 'id' is missing`, 'every port needs one')
  if (ID_SYNTAX.test(id)) return
  const hint = 'letters, digits, "-", "." and "_", a letter first, at most 63'
  fail(at('id'), `"${id}" is no id`, hint)
}

function validatePcap(options: PcapOptions, at: At): void {
  const { replay, record } = options
  if ((replay === undefined) === (record === undefined)) {
    fail(at('replay'), 'a pcap port needs either replay=FILE or record=FILE')
  }
  if (record !== undefined && (options.pace !== undefined || options.loop !== undefined)) {
    fail(at('record'), 'pace= and loop= are only valid with replay=')
  }
}

const noPath = (at: At): void => fail(at('path'), `Parameter 'path' is missing`)

function validateVhostUser(options: VhostUserOptions, at: At): void {
  const { path } = options
  if (path === undefined || path === '') noPath(at)
  const bytes = Buffer.byteLength(path)
  if (bytes > SOCKET_PATH_MAX) {
    fail(
      at('path'),
      `the path is ${counted(bytes, 'byte')} long, a socket's has at most ${SOCKET_PATH_MAX}`,
    )
  }
}

/** QEMU's conflict rules in QEMU's order, with its texts. */
function validateTap(options: TapOptions, at: At): void {
  const has = (...keys: (keyof TapOptions)[]): boolean =>
    keys.some((key) => options[key] !== undefined)
  if (options.vhost === false && has('vhostfd', 'vhostfds')) {
    fail(at('vhost'), 'vhostfd(s)= is not valid without vhost')
  }
  if (has('fd')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'helper', 'queues', 'fds', 'vhostfds')) {
      fail(
        at('fd'),
        'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=',
      )
    }
  } else if (has('fds')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'helper', 'queues', 'vhostfd')) {
      fail(
        at('fds'),
        'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=',
      )
    }
    validateFds(options, at)
  } else if (has('helper')) {
    if (has('ifname', 'script', 'downscript', 'vnet_hdr', 'queues', 'vhostfds')) {
      fail(
        at('helper'),
        'ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=',
      )
    }
  } else if (has('vhostfds')) {
    fail(at('vhostfds'), `vhostfds= is invalid if fds= wasn't specified`)
  }
  if (options.vhost === true || options.vhostforce === true) {
    fail(at('vhost'), 'vhost-net requested but could not be initialized', 'use vhost=off')
  }
  if (has('vhostfd', 'vhostfds', 'poll-us')) {
    fail(at('vhostfd'), 'vhostfd=, vhostfds= and poll-us= need vhost-net, which framepump has not')
  }
  if (has('br') && !has('helper')) fail(at('br'), 'br= is only valid with helper=')
  if (has('netns') && has('fd', 'fds', 'helper')) {
    fail(at('netns'), 'netns= is invalid with fd=, fds= and helper=')
  }
  validateIfname(options.ifname, at)
}

function validateRawSocket(options: RawSocketOptions, at: At): void {
  const { ifname, fd } = options
  if (fd !== undefined) {
    const others = (['ifname', 'netns', 'queues'] as const).filter(
      (key) => options[key] !== undefined,
    )
    if (others.length > 0) {
      fail(at('fd'), `${others.join('=, ')}= cannot be given with fd=, which says all of it`)
    }
    return
  }
  if (ifname === undefined || ifname === '') {
    return fail(at('ifname'), `Parameter 'ifname' is missing`, 'the interface, as ifname=eth1')
  }
  if (ifname.includes('%')) fail(at('ifname'), `ifname "${ifname}" is no interface name`)
  validateIfname(ifname, at)
}

function validateFds(options: TapOptions, at: At): void {
  const count = options.fds!.split(':').length
  if (count > FDS_MAX) fail(at('fds'), `fds= takes at most ${FDS_MAX} descriptors`)
  if (options.vhostfds !== undefined && options.vhostfds.split(':').length !== count) {
    fail(at('fds'), 'The number of fds passed does not match the number of vhostfds passed')
  }
}

/** What the kernel's dev_valid_name refuses, said before it silently cuts the name. */
function validateIfname(ifname: string | undefined, at: At): void {
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
