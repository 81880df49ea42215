/**
 * Changes that are made as a whole or not at all. Each step says how it is undone before it is begun:
 * nobody can say how far a step came that failed, so undoing one that never happened does nothing.
 */

import type { FramepumpError } from '../errors.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'

export type Step = () => unknown

/** Notes how a step is undone. */
export type Undo = (step: Step) => void

/**
 * Runs a change. When it fails, what it noted is done, last first, and the failure is thrown.
 * `log` is told what could not be undone.
 */
export async function allOrNothing<T>(change: (undo: Undo) => Promise<T>, log: Log): Promise<T> {
  const undoing: Step[] = []
  try {
    return await change((step) => void undoing.push(step))
  } catch (error) {
    await doAll(undoing.toReversed(), log)
    throw error
  }
}

/** Does each step in its turn, whatever becomes of those before it. `log` is told what failed. */
export async function doAll(steps: readonly Step[], log: Log): Promise<void> {
  for (const step of steps) {
    try {
      await step()
    } catch (error) {
      // That the engine has failed is known.
      if ((error as FramepumpError).code !== 'ENGINE_FAILED') log(explain(error), 'error')
    }
  }
}
