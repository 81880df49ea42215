/** The kinds of ports, as the control plane has them: a line each. */
import { isDeepStrictEqual } from 'node:util'
import type { At } from '../schema/read-option.ts'
import type { OptionRules } from '../schema/value.ts'
import { requiredOf } from '../schema/value.ts'
import type { DescriptorShare } from './descriptor-budget.ts'
import { DescriptorBudget } from './descriptor-budget.ts'
import { memoryKind } from './memory/kind.control.ts'
import type { ControlKind, ControlPort, ControlPortContext, PortNeeds } from './control-port.ts'
import { takeOverFailed } from './failed.control.ts'
import type { HandedState } from './handed.ts'
import { handOverError } from './handed.ts'
import type { PortOptions, PortType } from './options.ts'
import { pcapKind } from './pcap/kind.control.ts'
import type { PortSchema } from './port-schema.ts'
import { PostponedControlPort } from './postponed.control.ts'
import { checkSwitching, SWITCHING_RULES } from './switching-options.ts'
import { rawSocketKind } from './raw-socket/kind.control.ts'
import { tapKind } from './tap/kind.control.ts'
import { vhostUserKind } from './vhost-user/kind.control.ts'
import { virtioNetKind } from './virtio-net/kind.control.ts'

type Kinds = {
  readonly [T in PortType]: ControlKind<Extract<PortOptions, { type: T }>>
}

const KINDS: Kinds = {
  tap: tapKind,
  'raw-socket': rawSocketKind,
  'vhost-user': vhostUserKind,
  'virtio-net': virtioNetKind,
  pcap: pcapKind,
  memory: memoryKind,
}

/** The kind of these options takes them. */
const kindOf = ({ type }: PortOptions): ControlKind<PortOptions> => KINDS[type]

/** All options that a port of the kind has. */
const allOptions = (schema: PortSchema): OptionRules => ({ ...schema.options, ...SWITCHING_RULES })

/** Of the kinds that option strings and config files can name. */
export const PORT_SCHEMAS: Readonly<Record<string, PortSchema>> = Object.fromEntries(
  Object.entries(KINDS).flatMap(([type, { schema }]) =>
    schema.isApiOnly === true ? [] : [[type, schema]],
  ),
)

/** Their options. */
export const OPTION_TABLE: Readonly<Record<string, OptionRules>> = Object.fromEntries(
  Object.entries(PORT_SCHEMAS).map(([type, schema]) => [type, allOptions(schema)]),
)

/** The type exists, though neither option strings nor config files can name it. */
export function isApiOnly(type: string): boolean {
  return Object.hasOwn(KINDS, type) && !Object.hasOwn(PORT_SCHEMAS, type)
}

/** Options without which there is no port of that type. */
export function requiredOptions(type: PortType): readonly string[] {
  return requiredOf(KINDS[type].schema.options)
}

/** Checks what one option says about another. Throws ConfigError. */
export function checkOptions(options: PortOptions, at: At): void {
  kindOf(options).check?.(options, at)
  checkSwitching(options, at)
}

/** Its descriptors are set aside until it is closed. Throws, also SysError DESCRIPTOR_SHARE. */
export async function openPort(
  options: PortOptions,
  context: ControlPortContext,
): Promise<ControlPort> {
  const share = DescriptorBudget.ofProcess.take(options.id, descriptorsOf(options))
  try {
    return giveBackAtEnd(await kindOf(options).open(options, context, share), share)
  } catch (error) {
    share.giveBack()
    throw error
  }
}

/** The same of a port that another process hands over. Throws, and the descriptors stay the caller's. */
export function takeOverPort(
  options: PortOptions,
  handed: HandedState,
  context: ControlPortContext,
): ControlPort {
  const failed = takeOverFailed(options, handed)
  if (failed !== undefined) return failed
  const kind = Object.hasOwn(KINDS, options.type) ? kindOf(options) : undefined
  if (kind?.takeOver === undefined) {
    throw handOverError(options.id, `a ${options.type} port cannot be taken over`)
  }
  const share = DescriptorBudget.ofProcess.take(options.id, descriptorsOf(options))
  try {
    return giveBackAtEnd(kind.takeOver(options, handed, context, share), share)
  } catch (error) {
    share.giveBack()
    throw error
  }
}

/** However the port ends. */
function giveBackAtEnd(open: ControlPort, share: DescriptorShare): ControlPort {
  const ending: Partial<Record<'abandon' | 'close' | 'handedOver', () => Promise<void>>> = open
  for (const way of ['close', 'abandon', 'handedOver'] as const) {
    const end = ending[way]?.bind(open)
    if (end !== undefined) ending[way] = () => end().finally(() => share.giveBack())
  }
  return open
}

/** How many it may need. */
export function descriptorsOf(options: PortOptions): number {
  return kindOf(options).descriptors(options)
}

/**
 * The port in its postponed form, or the reason why it is opened at once. `isIncoming`: the instance
 * was started to take over from another one.
 */
export function postponePort(
  options: PortOptions,
  isIncoming: boolean,
): PostponedControlPort | string {
  const kind = kindOf(options)
  if (kind.postpone === undefined) {
    return `a ${options.type} port has nothing that another process could own`
  }
  const form = isIncoming ? kind.postpone(options) : 'not started with --incoming'
  return typeof form === 'string' ? form : new PostponedControlPort(options, form, openPort)
}

/** The names of the options that differ. */
export function changedOptions(before: PortOptions, after: PortOptions): string[] {
  const [old, wanted] = [before, after] as unknown as Record<string, unknown>[]
  return [...new Set([...Object.keys(old), ...Object.keys(wanted)])].filter(
    (key) => !isDeepStrictEqual(old[key], wanted[key]),
  )
}

/**
 * The names of the options that differ, of which all change while the port runs; null: it must be made
 * anew for one of them.
 */
export function changedInPlace(before: PortOptions, after: PortOptions): string[] | null {
  if (before.type !== after.type || before.id !== after.id) return null
  const keys = changedOptions(before, after)
  const options = allOptions(kindOf(before).schema)
  return keys.every((key) => options[key]?.inPlace === true) ? keys : null
}

/** Names or numbers of the descriptors that it is given. */
export function givenDescriptors(options: PortOptions): readonly string[] {
  return kindOf(options).given?.(options) ?? []
}

/** What the process must be allowed for it. */
export function needsOf(options: PortOptions): PortNeeds {
  return kindOf(options).needs?.(options) ?? {}
}
