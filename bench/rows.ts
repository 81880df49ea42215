/** What a row of the bench is: peers in turn, round by round. */
import type { Report } from './report.ts'

export interface Scale {
  readonly rounds: number
  readonly seconds: number
  /** Seconds of the memory row before and after its first reading. */
  readonly memorySeconds: readonly [number, number]
  readonly idleSeconds: number
  /** One after another. */
  readonly handOvers: number
}

/** A row on its bed. The last peer is the reference of the others. */
export interface Row<P extends string = string> {
  readonly peers: readonly P[]
  run(scale: Scale, peers: readonly P[], report: Report): Promise<void>
}

export async function inTurn<P extends string>(
  scale: Scale,
  peers: readonly P[],
  run: (peer: P) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < scale.rounds; round++) for (const peer of peers) await run(peer)
}
