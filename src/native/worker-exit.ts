/**
 * The end of threads that sleep in the kernel. A process that exits (process.exit, an uncaught error)
 * and a thread that ends have Node join the workers that they started, and Node cannot wake one out
 * of a system call: that would be for ever. So whoever starts a worker says here what wakes it; the
 * worker then finds a flag of its own set, and leaves its loop.
 */
import { isMainThread } from 'node:worker_threads'

/**
 * How long workers of this thread may sleep, -1: for ever. Within a worker that its parent terminates
 * no code of ours runs any more, so its workers come out of the kernel now and then, where Node can
 * end them.
 */
export const WORKER_SLEEP_MAX_MS: number = isMainThread ? -1 : 200

const actions = new Set<() => void>()

function runAll(): void {
  for (const action of actions) action()
}

/** Calls `action`, which throws nothing, when this thread or its process exits; returns what takes it back. */
export function atExit(action: () => void): () => void {
  // Before listeners of the program's, which may throw.
  if (actions.size === 0) process.prependListener('exit', runAll)
  actions.add(action)
  return () => {
    actions.delete(action)
    if (actions.size === 0) process.off('exit', runAll)
  }
}
