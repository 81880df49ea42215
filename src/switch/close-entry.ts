/** The end of the ports of a switch that is closed, or whose engine has failed. */
import { StateError } from '../errors.ts'
import type { EngineClient } from './engine-client.ts'
import type { PortEntry } from './port-entry.ts'

/** Each step is done whatever became of those before it; what could not be done is logged. */
export async function closeEntries(
  entries: Iterable<PortEntry>,
  engine: Pick<EngineClient, 'request'>,
  forget: (entry: PortEntry) => Promise<void>,
  log: (message: string) => void,
): Promise<void> {
  for (const entry of entries) {
    const { index: port, open } = entry
    const steps: readonly (() => unknown)[] = [
      () => open.stop?.(),
      () => engine.request({ op: 'remove-port', port }),
      () => forget(entry),
      () => open.close(),
    ]
    for (const step of steps) {
      try {
        await step()
      } catch (error) {
        // That the engine has failed is known.
        const isKnown = error instanceof StateError && error.code === 'ENGINE_FAILED'
        if (!isKnown) log((error as Error).message)
      }
    }
  }
}
