/**
 * Byte strings as option strings of ports, and as config files: words that mean something, cut and put
 * together anyhow. What comes out is options or a ConfigError, never more than was written, and an
 * option string that is made of it means the same.
 */
import { isDeepStrictEqual } from 'node:util'
import { parseConfig } from '../../src/config/load.ts'
import { formatNetdev, parseNetdev } from '../../src/config/netdev.ts'
import { OPTION_TABLE } from '../../src/port/kinds.control.ts'
import { ConfigError } from '../../src/errors.ts'
import type { PortOptions } from '../../src/port/options.ts'
import type { Features } from './features.ts'
import { check, checkEqual, Operands } from './features.ts'

const TYPES = Object.keys(OPTION_TABLE)
const KEYS = [...new Set(TYPES.flatMap((type) => Object.keys(OPTION_TABLE[type])))]
// prettier-ignore
const VALUES = [
  'on', 'off', 'no', 'yes', 'true', '', 'a', 'p1', '/run/x', '0', '1', '2', '128', '256', '257',
  '-1', '65535', '68', '67', '1k', '2G', '9999999999999999', '1.5', '0x10', 'echo', 'full',
  '__proto__', 'constructor', 'fp%d', 'a b', '..', 'a,b', '1:2:3', 'x'.repeat(120), 'é', '\0',
]

function specOf(operands: Operands): string {
  let spec = ''
  while (!operands.isAtEnd) {
    const control = operands.byte()
    switch (control & 15) {
      case 0:
      case 1:
        spec += TYPES[(control >> 4) % TYPES.length]
        break
      case 2:
      case 3:
      case 4:
      case 5:
        spec += `,${operands.pick(KEYS)}=${operands.pick(VALUES).replaceAll(',', ',,')}`
        break
      case 6:
        spec += ',id=p1'
        break
      case 7:
        spec += operands.pick([',', '=', ',,', ',=', '==', 'type=tap'])
        break
      case 8:
        spec += `,${operands.pick(KEYS)}`
        break
      case 9:
        spec += operands.pick(VALUES)
        break
      case 10:
        spec += String.fromCharCode(operands.byte())
        break
      case 11:
        spec += `,${operands.pick(VALUES)}=${operands.pick(VALUES)}`
        break
      default:
        spec += Buffer.from(operands.take(control >> 4)).toString('latin1')
    }
  }
  return spec
}

export function fuzzOptions(input: Uint8Array, seen: Features): void {
  const spec = specOf(new Operands(input))
  let options: PortOptions
  try {
    options = parseNetdev(spec)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    seen.addText(error.message.slice(0, 24))
    return
  }
  checkOptions(options)
  checkFields(spec, options)
  seen.addText(Object.keys(options).join())
  const text = formatNetdev(options)
  const again = parseNetdev(text)
  check(isDeepStrictEqual(again, options), `${text} means the same`)
}

/** Nothing but the table's options, of the kinds that it says. */
function checkOptions(options: PortOptions): void {
  checkEqual(Object.getPrototypeOf(options), Object.prototype, 'prototype of options')
  check(TYPES.includes(options.type), 'a type that exists')
  const rules = OPTION_TABLE[options.type]
  for (const [key, value] of Object.entries(options)) {
    if (key === 'type') continue
    check(Object.hasOwn(rules, key), `option ${key}`)
    const rule = rules[key]
    if (rule.kind === 'list' || rule.kind === 'map') {
      checkEqual(typeof value, 'object', key)
      continue
    }
    const { kind, range, values } = rule
    if (kind === 'boolean') checkEqual(typeof value, 'boolean', key)
    else if (kind === 'integer' || kind === 'size') {
      check(Number.isInteger(value) && value >= range![0] && value <= range![1], `${key} in range`)
    } else {
      checkEqual(typeof value, 'string', key)
      check(kind !== 'choice' || values!.includes(value as string), `${key} is one of the values`)
    }
  }
}

/** Split as QEMU splits, by other means: doubled commas are taken out first. */
function checkFields(spec: string, options: PortOptions): void {
  const fields = spec.replaceAll(',,', '\u{f0000}').split(',')
  const given = new Map<string, string>()
  for (const [number, field] of fields.entries()) {
    const text = field.replaceAll('\u{f0000}', ',')
    const at = text.indexOf('=')
    const [key, value] =
      at < 0
        ? number === 0
          ? ['type', text]
          : [text, 'on']
        : [text.slice(0, at), text.slice(at + 1)]
    check(!given.has(key), `${key} is taken twice`)
    given.set(key, value)
  }
  checkEqual(given.size, Object.keys(options).length, 'options that were given')
  for (const [key, value] of Object.entries(options)) {
    const text = given.get(key)
    check(text !== undefined, `${key} was given`)
    if (typeof value === 'string') checkEqual(value, text, key)
    else if (typeof value === 'boolean')
      checkEqual(['on', 'yes', 'true'].includes(text), value, key)
    else checkEqual(sizeOf(text), value, key)
  }
}

function sizeOf(text: string): number {
  const power = 'bkmgt'.indexOf(text.slice(-1).toLowerCase())
  return power < 0 ? Number(text) : Number(text.slice(0, -1)) * 1024 ** power
}

const LINES = [
  'ports:',
  '  - { id: a, type: tap, ifname: fp0 }',
  '  - { id: b, type: vhost-user, path: /x }',
  '  - id: c',
  '    type: pcap',
  '    replay: /f',
  'links:',
  '  - [a, b]',
  'links: [[a, b], [b, c]]',
  'switch: { mac-aging-s: 300 }',
  'switch:',
  '  mac-table-size: 8192',
  'control: /c',
  'engines: 1',
  'engines: 2',
  'pace: busy',
  'io: auto',
  'x: &a [1]',
  'y: *a',
  '__proto__: { a: 1 }',
  'ports: []',
  'ports: ~',
  '---',
  '  - { type: tap, id: 1, queues: 300 }',
  '? { a: b }',
  '!!js/function x: y',
]

export function fuzzConfig(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  let text = ''
  while (!operands.isAtEnd && text.length < 2000) {
    const control = operands.byte()
    if (control < 200) text += `${operands.pick(LINES)}\n`
    else if (control < 220) {
      text += `  - { id: ${operands.pick(VALUES)}, type: ${operands.pick(TYPES)}, ${operands.pick(KEYS)}: ${operands.pick(VALUES)} }\n`
    } else if (control < 235) {
      const at = operands.half() % (text.length + 1)
      text =
        text.slice(0, at) +
        operands.pick([' ', '{', '}', '[', ':', '"', '-', '&a', '*a', '#']) +
        text.slice(at)
    } else if (control < 245) {
      const at = operands.half() % (text.length + 1)
      text = text.slice(0, at) + text.slice(at + 1 + (control & 7))
    } else text += Buffer.from(operands.take(control & 7)).toString('latin1')
  }
  try {
    const config = parseConfig(text, 'f')
    const ids = config.ports.map(({ id }) => id)
    checkEqual(new Set(ids).size, ids.length, 'ids are different')
    for (const port of config.ports) checkOptions(port)
    const ends = config.links.flat()
    check(
      ends.every((id) => ids.includes(id)),
      'links are between ports',
    )
    checkEqual(new Set(ends).size, ends.length, 'a port is on one link')
    checkEqual(({} as Record<string, unknown>)['a'], undefined, 'Object.prototype')
    seen.add(config.ports.length, config.links.length, Object.keys(config).length)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    check(/^f(?:: |:\d+:\d+: )/.test(error.message), `an error has a place: ${error.message}`)
    seen.addText(error.message.slice(0, 40))
  }
}
