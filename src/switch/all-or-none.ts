/**
 * Opens everything that waits, first in first out. At the first failure what this call opened is
 * closed again, in reverse; what comes later is not touched; the failure is thrown. So afterwards
 * either nothing waits or all of it does, and the call can be repeated.
 */
export async function openAllOrNone<T>(
  waiting: readonly T[],
  open: (one: T) => Promise<void>,
  closeAgain: (one: T) => Promise<void>,
): Promise<void> {
  const opened: T[] = []
  try {
    for (const one of waiting) {
      await open(one)
      opened.push(one)
    }
  } catch (error) {
    for (const one of opened.toReversed()) await closeAgain(one)
    throw error
  }
}
