/**
 * Gives the declarations in dist the doc comments that editors show of a port's options. The definitions
 * say all of it (src/port/KIND/options.ts), but the types that come of them have no comments of their own.
 * A step of `npm run build:ts`, on what that has made.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { PORT_SCHEMAS } from '../build/port/kinds.control.js'

/** Sentences of a comment. */
function meaningOf({ description, unit, range, absent, ...rule }) {
  const lines = [description]
  if (unit !== undefined) lines.push(`Unit: ${unit}.`)
  if (range !== undefined) lines.push(`Range: ${range[0]} to ${range[1]}.`)
  if (absent !== undefined) lines.push(`Default: ${absent}.`)
  if (rule.inPlace === true) lines.push('Changes while the port runs.')
  if (rule.default !== undefined) lines.push(`@defaultValue ${rule.default}`)
  return lines
}

/** In front of each member of that name whose definition begins there. */
function document(path, options) {
  let text = readFileSync(path, 'utf8')
  for (const [name, rule] of Object.entries(options)) {
    const member = new RegExp(`^( +)readonly '?${name}'?: \\{\n`, 'm')
    const lines = meaningOf(rule)
    text = text.replace(member, (line, indent) => {
      const body = lines.map((each) => `${indent} * ${each}\n`).join('')
      return `${indent}/**\n${body}${indent} */\n${line}`
    })
  }
  writeFileSync(path, text)
}

for (const [type, { options }] of Object.entries(PORT_SCHEMAS)) {
  document(new URL(`../dist/port/${type}/options.d.ts`, import.meta.url), options)
}
// What every kind has.
document(new URL('../dist/port/port-schema.d.ts', import.meta.url), PORT_SCHEMAS.tap.options)
