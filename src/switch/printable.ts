/**
 * Text of others (names, paths, what a front-end, a client or a file said) for a log or a terminal:
 * nothing in it begins a new line, moves the cursor, or turns the direction of writing.
 */

/**
 * Control characters (C0, DEL, C1), what sets directions or is not seen at all, what separates lines
 * and paragraphs, halves of surrogate pairs.
 */
const NOT_PRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

function escaped(character: string): string {
  const short = SHORT[character]
  if (short !== undefined) return short
  // As many units as it has: JSON knows no longer escapes.
  return Array.from(
    { length: character.length },
    (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`,
  ).join('')
}

/** The text in one line, its control characters as `\n` or `\u001b`. Twice is the same as once. */
export function printable(text: string): string {
  return text.replace(NOT_PRINTABLE, escaped)
}

/** JSON text that stays the same value: JSON itself leaves DEL, C1 and the others as they are. */
export function printableJson(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, null, indent) ?? 'null'
  return text.replace(NOT_PRINTABLE, (character) =>
    character === '\n' ? character : escaped(character),
  )
}
