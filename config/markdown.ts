/** Definitions as tables in Markdown. */
import type { Booleans } from '../src/schema/describe.ts'
import { code, defaultOf, mayBe, WORDS } from '../src/schema/describe.ts'
import type { Members, Value } from '../src/schema/value.ts'

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('\n', ' ')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** Those with a name: a row each. `more`: what stands in further columns. */
export function memberRows(
  members: Members,
  more: (member: Value) => readonly string[] = () => [],
  booleans: Booleans = WORDS,
): string[][] {
  return Object.entries(members).map(([name, member]) => [
    code(name),
    mayBe(member, booleans),
    defaultOf(member, booleans),
    member.description,
    ...more(member),
  ])
}
