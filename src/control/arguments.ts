/** Checks the arguments of a control command against their definition, in QEMU's words and order. */
import { StateError } from '../errors.ts'
import { FORMATS } from '../schema/formats.ts'
import type { ListValue, Members, Value } from '../schema/value.ts'

/** JSON's types, as QEMU calls them. */
const TYPES: Readonly<Partial<Record<Value['kind'], string>>> = {
  string: 'string',
  choice: 'string',
  boolean: 'boolean',
  number: 'number',
  integer: 'number',
  list: 'array',
  map: 'object',
}

const refused = (text: string): StateError => new StateError('QMP_ARGUMENT', text)

/** What is missing or of a wrong type is told before what is too much, as QEMU does. */
export function checkArguments(
  { arguments: members, isOpen }: { readonly arguments: Members; readonly isOpen: boolean },
  args: Readonly<Record<string, unknown>>,
): void {
  checkMembers('', args, members, isOpen)
}

/** `prefix`: what they are members of, as `erspan.`. */
function checkMembers(
  prefix: string,
  values: Readonly<Record<string, unknown>>,
  members: Members,
  isOpen = false,
): void {
  for (const [key, member] of Object.entries(members)) {
    const name = `${prefix}${key}`
    if (Object.hasOwn(values, key)) checkValue(name, values[key], member)
    else if (member.required === true) throw refused(`Parameter '${name}' is missing`)
  }
  if (isOpen) return
  for (const key of Object.keys(values)) {
    if (!Object.hasOwn(members, key)) throw refused(`Parameter '${prefix}${key}' is unexpected`)
  }
}

/** A number that stands for a text, as 10 for a VLAN. */
function standsFor(wanted: Value, value: unknown): boolean {
  if (typeof value !== 'number' || wanted.kind !== 'string' || wanted.format === undefined) {
    return false
  }
  const [least, most] = FORMATS[wanted.format].numbers ?? [1, 0]
  return value >= least && value <= most
}

function checkValue(name: string, value: unknown, wanted: Value): void {
  const type = TYPES[wanted.kind]
  const actual = Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value
  if (type !== undefined && actual !== type && !standsFor(wanted, value)) {
    throw refused(`Invalid parameter type for '${name}', expected: ${type}`)
  }
  if (wanted.kind === 'list') checkList(name, value as unknown[], wanted)
  else if (wanted.kind === 'map') {
    checkMembers(`${name}.`, value as Record<string, unknown>, wanted.members, wanted.isOpen)
  } else if (wanted.kind === 'integer') {
    const [least, most] = wanted.range!
    if (Number.isInteger(value) && Number(value) >= least && Number(value) <= most) return
    throw refused(`Parameter '${name}' expects an integer in the range of ${least} to ${most}`)
  } else if (wanted.kind === 'choice' && !wanted.values!.includes(value as string)) {
    const last = wanted.values!.at(-1)!
    const first = wanted.values!.slice(0, -1).join(', ')
    throw refused(`Parameter '${name}' must be ${first} or ${last}`)
  }
}

function checkList(name: string, list: readonly unknown[], wanted: ListValue): void {
  for (const [at, one] of list.entries()) checkValue(`${name}[${at}]`, one, wanted.of)
  const [least, most] = wanted.count ?? [0, Infinity]
  if (list.length < least || list.length > most) {
    throw refused(`Parameter '${name}' must have ${least} to ${most} entries`)
  }
  if (wanted.isUnique === true && new Set(list).size < list.length) {
    throw refused(`Parameter '${name}' must not have the same entry twice`)
  }
}
