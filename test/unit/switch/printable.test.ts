/** Text of others in one line of a terminal. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { printable, printableJson } from '../../../src/switch/printable.ts'

describe('printable', () => {
  test('writes control characters as escapes', () => {
    expect(printable('a\nb\r\tc\0\x1b[31md\x7f\x9b2Je')).toBe(
      'a\\nb\\r\\tc\\u0000\\u001b[31md\\u007f\\u009b2Je',
    )
  })

  test('writes what separates lines, turns the direction or cannot be seen as escapes', () => {
    expect(printable('\u2028\u2029\u202e\u2066\u200b\ufeff\u00ad\ud800x')).toBe(
      '\\u2028\\u2029\\u202e\\u2066\\u200b\\ufeff\\u00ad\\ud800x',
    )
  })

  test('leaves other text as it is', () => {
    const text = 'port "vm1": größer als 0x1f \\n \u{1f600} 网'
    expect(printable(text)).toBe(text)
  })

  test('of any text is one line that stays the same', () => {
    let text = ''
    for (let code = 0; code <= 0x10_ffff; code += code < 0x1_0000 ? 1 : 0x101) {
      text += String.fromCodePoint(code)
    }
    const once = printable(text)
    expect(once).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]/u)
    expect(printable(once)).toBe(once)
  })
})

describe('printableJson', () => {
  test('is the same value', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = printableJson(value, 2)
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)))
        expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]/u)
      }),
    )
  })
})
