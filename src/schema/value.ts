/**
 * What a value may be, said once as data: an option of a port, a key of the config file, an argument of a
 * command. Static types, JSON Schema (`json-schema.ts`), readers (`read-option.ts`, `control/arguments.ts`)
 * and the references in Markdown come from it.
 *
 * A definition is a literal with `as const`, from which TypeScript has the static type by `StaticOf`.
 * TypeBox says the same with function calls, whose types --isolatedDeclarations wants to be written out
 * beside each of them.
 */
import type { FormatName } from './formats.ts'

/** What an option of a port may be. */
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

export type ScalarKind =
  | OptionKind
  /** Any number; what does not fit is told by whoever takes it. */
  | 'number'
  /** A name, or a number that stands for one. */
  | 'name'
  | 'any'

/** What is said of a value that has a name. */
export interface Meaning {
  /** Sentences in Markdown for a user, without the name. */
  readonly description?: string
  readonly default?: string | number | boolean
  /** What holds without it, where that is no value; Markdown. */
  readonly absent?: string
  readonly required?: boolean
  /** Of an option, that it changes while the port runs: all others are what it is made with. */
  readonly inPlace?: boolean
}

export interface ScalarValue<K extends ScalarKind = ScalarKind> extends Meaning {
  readonly kind: K
  readonly range?: readonly [number, number]
  readonly values?: readonly string[]
  /** In which it is counted. */
  readonly unit?: string
  /** What else a text must be. */
  readonly format?: FormatName
}

export interface ListValue extends Meaning {
  readonly kind: 'list'
  readonly of: Value
  /** Words that may stand in the place of a list. */
  readonly words?: readonly string[]
  /** Entries, least and most. */
  readonly count?: readonly [number, number]
  readonly isUnique?: boolean
  /** In a file it may stand there without any value. */
  readonly isNullable?: boolean
}

export interface MapValue extends Meaning {
  readonly kind: 'map'
  readonly members: Members
  /** There may be others as well. */
  readonly isOpen?: boolean
  readonly isNullable?: boolean
}

export type Value = ScalarValue | ListValue | MapValue
export type Members = Readonly<Record<string, Value & { readonly description: string }>>

/** A list of texts; an option string has them split at `:`. */
export interface OptionList extends ListValue {
  readonly of: ScalarValue<'string' | 'choice'>
}

/** Keys with values of their own; an option string has `storm.broadcast=100`. */
export interface OptionMap extends MapValue {
  readonly members: Readonly<Record<string, ScalarValue<OptionKind> & { description: string }>>
}

export type OptionRule = (ScalarValue<OptionKind> | OptionList | OptionMap) & {
  readonly description: string
}
export type OptionRules = Readonly<Record<string, OptionRule>>

/** What a value of this definition is, once it was read. */
export type StaticOf<V> = V extends { readonly isNullable: true }
  ? StaticPresent<V> | null
  : StaticPresent<V>

type StaticPresent<V> = V extends {
  readonly kind: 'list'
  readonly words: readonly (infer W)[]
  readonly of: infer E
}
  ? W | readonly StaticOf<E>[]
  : StaticList<V>

type StaticList<V> = V extends { readonly kind: 'list'; readonly of: infer E }
  ? readonly StaticOf<E>[]
  : V extends { readonly kind: 'map'; readonly members: infer M }
    ? StaticMembers<M>
    : V extends { readonly kind: 'choice'; readonly values: readonly (infer C)[] }
      ? C
      : StaticScalar<V>

type StaticScalar<V> = V extends { readonly kind: 'boolean' }
  ? boolean
  : V extends { readonly kind: 'integer' | 'size' | 'number' }
    ? number
    : V extends { readonly kind: 'name' } | { readonly format: 'vlans' | 'octet' }
      ? string | number
      : V extends { readonly kind: 'any' }
        ? unknown
        : string

/** Those that are required must be there, others are absent when they were not given. */
export type StaticMembers<M> = {
  readonly [K in keyof M as M[K] extends { readonly required: true } ? K : never]: StaticOf<M[K]>
} & {
  readonly [K in keyof M as M[K] extends { readonly required: true } ? never : K]?: StaticOf<M[K]>
}

/** The names of those that must be given. */
export function requiredOf(members: Readonly<Record<string, Value>>): string[] {
  return Object.keys(members).filter((name) => members[name].required === true)
}
