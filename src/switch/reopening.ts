/**
 * Some ports follow their interface by its name: when it is gone all that the port has is let go of, and
 * when there is one of that name the port is opened anew, in its place on the switch or on a link.
 */
import { explain } from '../text.ts'
import type { PortEntry } from './port-entry.ts'
import type { OpenPort } from '../port/open-port.ts'

export interface ReopeningParts {
  readonly log: (message: string) => void
  /** Opens the port that its options describe. */
  open(entry: PortEntry): Promise<OpenPort>
  /** The engine has what `entry.open` describes from now on. */
  replace(entry: PortEntry): Promise<void>
  /** Looks at the interface of what is open now. */
  watch(entry: PortEntry): void
  show(entry: PortEntry): void
}

/** What is there was looked at, and is not what the port has open. As a step of the switch's changes. */
export async function followInterface(entry: PortEntry, parts: ReopeningParts): Promise<void> {
  const { open } = entry
  const verdict = open.judge?.(open.lookUp?.() ?? null) ?? 'fine'
  if (verdict === 'fine') return
  if (open.isPlaceholder !== true) await lose(entry, parts)
  else if (verdict === 'gone') return
  if (verdict === 'anew') await reopen(entry, parts)
}

async function lose(entry: PortEntry, parts: ReopeningParts): Promise<void> {
  const { open, options } = entry
  const lost = open.placeholder!(options)
  await exchange(entry, lost, parts)
  await open.close()
  parts.watch(entry)
  // What was to be opened anew at once is not shown as lost.
  if (entry.open.judge?.(entry.open.lookUp?.() ?? null) === 'anew') return
  parts.log(`${options.type} ${options.id}: failed error=${lost.failure}`)
  parts.show(entry)
}

async function reopen(entry: PortEntry, parts: ReopeningParts): Promise<void> {
  const { open: lost, options } = entry
  let open: OpenPort
  try {
    open = await parts.open(entry)
  } catch (error) {
    // As long as it is the same that is in the way it is said once.
    const failed = lost.placeholder!(options, explain(error))
    if (entry.failure === failed.failure) return
    entry.open = failed
    entry.failure = failed.failure
    parts.log(`${options.type} ${options.id}: failed error=${failed.failure}`)
    parts.show(entry)
    return
  }
  try {
    await exchange(entry, open, parts)
  } catch (error) {
    await open.close()
    throw error
  }
  parts.watch(entry)
  parts.log(`${options.type} ${options.id}: open again ifname=${open.facts().ifname}`)
  parts.show(entry)
}

/** When the engine cannot have the new one it keeps the one before. */
async function exchange(entry: PortEntry, open: OpenPort, parts: ReopeningParts): Promise<void> {
  const { open: before, failure } = entry
  entry.open = open
  entry.failure = open.failure
  try {
    await parts.replace(entry)
  } catch (error) {
    entry.open = before
    entry.failure = failure
    throw error
  }
}
