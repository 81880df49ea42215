/** What a value may be, and what it is without being given, in a few words of Markdown. */
import { FORMATS } from './formats.ts'
import type { Value } from './value.ts'

export const code = (text: string): string => `\`${text}\``

/** How booleans are written: in files and option strings, or in JSON. */
export type Booleans = readonly [no: string, yes: string]
export const WORDS: Booleans = ['off', 'on']
export const JSON_BOOLEANS: Booleans = ['false', 'true']

/** What a value may be, in a few words. */
export function mayBe(value: Value, [no, yes]: Booleans = WORDS): string {
  switch (value.kind) {
    case 'list':
      return [...(value.words ?? []).map(code), `list of ${ofList(value.of)}`].join(', ')
    case 'map':
      return `map of ${Object.keys(value.members).map(code).join(', ') || 'keys'}`
    case 'boolean':
      return `${code(yes)}, ${code(no)}`
    case 'choice':
      return value.values!.map(code).join(', ')
    case 'integer':
      return `${[...new Set(value.range)].join('..')}${unitOf(value)}`
    case 'size':
      return `${value.unit}; k, M, G and T are read`
    case 'number':
      return `number${value.unit === undefined ? '' : ` of ${value.unit}`}`
    case 'string':
      return value.format === undefined ? 'text' : FORMATS[value.format].name
    case 'script':
      return 'path'
    case 'name':
      return 'name or number'
    case 'any':
      return 'anything'
  }
}

function ofList(one: Value): string {
  if (one.kind === 'map') return 'maps'
  if (one.kind === 'list') return 'pairs'
  if (one.kind !== 'string') return mayBe(one)
  return one.format === undefined ? 'texts' : FORMATS[one.format].name
}

const unitOf = ({ unit }: { readonly unit?: string }): string =>
  unit === undefined ? '' : ` ${unit}`

export function defaultOf(value: Value, [no, yes]: Booleans = WORDS): string {
  if (value.default !== undefined) {
    const { default: given } = value
    return code(typeof given === 'boolean' ? (given ? yes : no) : String(given))
  }
  return value.required === true ? 'required' : (value.absent ?? '')
}
