/** Ports that are held: nothing enters or leaves by them, and what is sent to them waits. */
import { StateError } from '../errors.ts'
import type { EngineClient } from '../engine/client.ts'
import type { PortEntry } from './port-entry.ts'
import type { Undo } from './undo.ts'

/** Both ends of a link, whichever is named. */
function withPeers(entries: readonly PortEntry[]): PortEntry[] {
  return [...new Set(entries.flatMap((entry) => [entry, entry.peer ?? entry]))]
}

/** Those that are not held yet. */
export async function hold(
  engine: EngineClient,
  entries: readonly PortEntry[],
  undo: Undo,
): Promise<void> {
  const running = withPeers(entries).filter(({ isHeld }) => !isHeld)
  if (running.length === 0) return
  undo(() => release(engine, running))
  for (const entry of running) entry.isHeld = true
  await engine.request({ op: 'hold', ports: running.map(({ index }) => index) })
}

/** All that are held of them from the same moment on. Throws when one cannot be read. */
export async function release(engine: EngineClient, entries: readonly PortEntry[]): Promise<void> {
  const held = withPeers(entries).filter(({ isHeld }) => isHeld)
  if (held.length === 0) return
  const ports = held.map(({ index }) => index)
  const failed = (await engine.request({ op: 'release', ports })) as number[]
  for (const entry of held) entry.isHeld = failed.includes(entry.index)
  const ids = held.filter(({ isHeld }) => isHeld).map(({ options }) => options.id)
  if (ids.length > 0) throw new StateError('ENGINE', `too many queues: ${ids.join(', ')}: held`)
}
