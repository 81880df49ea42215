/** Option strings as QEMU's -netdev: `type,key=value,...`; `,,` is a comma in a value. */
import { ConfigError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import { joinable } from '../schema/ip-prefix.ts'
import { portOptionsFromObject } from './port-options.ts'

/** Throws ConfigError that names the option. */
export function parseNetdev(spec: string): PortOptions {
  const fields = splitFields(spec)
  // Without a prototype: `__proto__` is a key like any other, and as unknown as any other.
  const object = Object.create(null) as Record<string, unknown>
  fields.forEach((field, index) => {
    const at = field.indexOf('=')
    // The first field is the type, a later one without a value is a boolean.
    const [key, value] =
      at >= 0
        ? [field.slice(0, at), field.slice(at + 1)]
        : index === 0
          ? ['type', field]
          : [field, 'on']
    if (key === '') {
      throw new ConfigError('BAD_OPTION', `empty key in "${spec}"`, { hint: 'write key=value' })
    }
    if (Object.hasOwn(object, key)) {
      throw new ConfigError('BAD_OPTION', `key "${key}" is given twice in "${spec}"`, { path: key })
    }
    put(object, key, value, spec)
  })
  return portOptionsFromObject(object)
}

/** `storm.broadcast=100` is a key of a map. */
function put(object: Record<string, unknown>, key: string, value: string, spec: string): void {
  const dot = key.indexOf('.')
  if (dot <= 0) {
    object[key] = value
    return
  }
  const [name, member] = [key.slice(0, dot), key.slice(dot + 1)]
  const map = (object[name] ??= Object.create(null)) as Record<string, unknown>
  if (typeof map !== 'object' || Object.hasOwn(map, member)) {
    throw new ConfigError('BAD_OPTION', `key "${key}" is given twice in "${spec}"`, { path: key })
  }
  map[member] = value
}

function splitFields(spec: string): string[] {
  const fields: string[] = []
  let field = ''
  for (let at = 0; at < spec.length; at++) {
    if (spec[at] !== ',') field += spec[at]
    else if (spec[at + 1] === ',') {
      field += ','
      at++
    } else {
      fields.push(field)
      field = ''
    }
  }
  fields.push(field)
  return fields
}

/** The inverse of parseNetdev. */
export function formatNetdev(options: PortOptions): string {
  const { type, ...rest } = options
  const fields = Object.entries(rest)
    .filter(([, value]) => value !== undefined)
    .flatMap(([key, value]) => formatField(key, value))
  return [type, ...fields].join(',')
}

/** One option, or one for each member of a map. */
export function formatField(key: string, value: unknown): string[] {
  if (Array.isArray(value)) return [`${key}=${value.map((one) => joinable(String(one))).join(':')}`]
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([name, one]) => formatField(`${key}.${name}`, one))
  }
  const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value)
  return [`${key}=${text.replaceAll(',', ',,')}`]
}
