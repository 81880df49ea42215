import { expect, test } from 'vitest'
import type { Undo } from '../../../src/switch/undo.ts'
import { allOrNothing, doAll } from '../../../src/switch/undo.ts'

/** Opens one letter after the other; those in `bad` cannot be opened, those in `stuck` not closed. */
async function run(
  letters: string,
  bad: string,
  stuck = '',
): Promise<{ steps: string[]; log: string[]; error: unknown }> {
  const steps: string[] = []
  const log: string[] = []
  const open = async (letter: string, undo: Undo): Promise<void> => {
    undo(() => {
      steps.push(`close ${letter}`)
      if (stuck.includes(letter)) throw new Error(`${letter} is stuck`)
    })
    steps.push(`open ${letter}`)
    if (bad.includes(letter)) await Promise.reject(new Error(letter))
  }
  const error = await allOrNothing(
    async (undo) => {
      for (const letter of letters) await open(letter, undo)
    },
    (message) => log.push(message),
  ).catch((reason: unknown) => reason)
  return { steps, log, error }
}

test('R3, R4: everything is opened, first in first out, and nothing is undone', async () => {
  expect(await run('abc', '')).toEqual({
    steps: ['open a', 'open b', 'open c'],
    log: [],
    error: undefined,
  })
})

test('D10: after the first failure what was begun is undone, last first, and nothing later is', async () => {
  expect(await run('abcd', 'cd')).toEqual({
    steps: ['open a', 'open b', 'open c', 'close c', 'close b', 'close a'],
    log: [],
    error: new Error('c'),
  })
})

test('what cannot be undone is told, and stops neither the rest nor the first failure', async () => {
  expect(await run('abc', 'c', 'bc')).toEqual({
    steps: ['open a', 'open b', 'open c', 'close c', 'close b', 'close a'],
    log: ['c is stuck', 'b is stuck'],
    error: new Error('c'),
  })
})

test('steps that have to be done are all done', async () => {
  const done: number[] = []
  const log: string[] = []
  await doAll(
    [
      () => void done.push(1),
      () => Promise.reject(new Error('second')),
      () => {
        throw new Error('third')
      },
      () => void done.push(4),
    ],
    (message) => log.push(message),
  )
  expect({ done, log }).toEqual({ done: [1, 4], log: ['second', 'third'] })
})
