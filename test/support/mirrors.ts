/** What the simulations of mirrors share. */
import { expect } from 'vitest'
import { ENGINE_MIRRORS } from '../../src/engine/cells.ts'
import type { MirrorDescription } from '../../src/engine/messages.ts'
import { whileTrue } from './bounded.ts'
import { frame, Sim } from './sim.ts'

/** As a last byte of an address: all stations. */
export const BROADCAST = 255

/** One that selects nothing, of port 3. */
export const mirror = (more: Partial<MirrorDescription>): MirrorDescription => ({
  number: 0,
  sources: [],
  destinations: [],
  vlans: null,
  output: 3,
  outputVlan: 0,
  filter: null,
  snapLength: 0,
  ...more,
})

/** All of them in one burst. */
export function sendAll(sim: Sim, port: number, frames: readonly Uint8Array[]): void {
  for (const one of frames) expect(sim.ports[port].send(one)).toBe(true)
  whileTrue('turns with frames', () => sim.engine.turn(false, 0) > 0)
}

/** Ports 0 to 2 have sent, and are known by their numbers plus 1. */
export function learnt(ports = 4): Sim {
  const sim = new Sim(ports)
  for (const port of [0, 1, 2]) sim.send(port, frame(BROADCAST, port + 1))
  for (let port = 0; port < ports; port++) sim.receive(port)
  return sim
}

/** Frames that a mirror has selected, and their bytes. */
export const selected = (sim: Sim, number = 0): number[] => {
  const cell = ENGINE_MIRRORS + 2 * number
  return [sim.engineCounters[cell], sim.engineCounters[cell + 1]]
}

/** `frame` with a tag. */
export function tagged(vid: number, bytes: Uint8Array): Uint8Array {
  return Uint8Array.from([...bytes.slice(0, 12), 0x81, 0, vid >> 8, vid & 0xff, ...bytes.slice(12)])
}
