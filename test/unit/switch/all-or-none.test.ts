import { expect, test } from 'vitest'
import { openAllOrNone } from '../../../src/switch/all-or-none.ts'

/** Runs over the letters; those in `bad` cannot be opened. */
async function run(letters: string, bad: string): Promise<{ steps: string[]; error: unknown }> {
  const steps: string[] = []
  const error = await openAllOrNone(
    letters.split(''),
    (letter) => {
      steps.push(`open ${letter}`)
      return bad.includes(letter) ? Promise.reject(new Error(letter)) : Promise.resolve()
    },
    (letter) => {
      steps.push(`close ${letter}`)
      return Promise.resolve()
    },
  ).catch((reason: unknown) => reason)
  return { steps, error }
}

test('R3, R4: everything is opened, first in first out', async () => {
  expect(await run('abc', '')).toEqual({
    steps: ['open a', 'open b', 'open c'],
    error: undefined,
  })
})

test('D10: after the first failure what was opened is closed, and nothing later is opened', async () => {
  expect(await run('abcd', 'cd')).toEqual({
    steps: ['open a', 'open b', 'open c', 'close b', 'close a'],
    error: new Error('c'),
  })
})

test('nothing waits: nothing happens', async () => {
  expect(await run('', '')).toEqual({ steps: [], error: undefined })
})
