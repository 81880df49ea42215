/** The kinds of ports, as the engine thread has them: a line each. */
import type {
  EngineKind,
  EnginePort,
  FarEndMaker,
  PortPlace,
  PortSurroundings,
} from './contract.ts'
import { erspanKind } from './erspan/engine.ts'
import { memoryKind } from './memory/engine.ts'
import type { PortDescription } from './messages.ts'
import { recordKind, replayKind } from './pcap/engine.ts'
import { postponedKind } from './postponed.engine.ts'
import { rawSocketKind } from './raw-socket/kind.engine.ts'
import { tapKind } from './tap/kind.engine.ts'
import { virtioKind } from './virtio/kind.engine.ts'

type Kinds = {
  readonly [K in PortDescription['kind']]: EngineKind<Extract<PortDescription, { kind: K }>>
}

const KINDS: Kinds = {
  tap: tapKind,
  'raw-socket': rawSocketKind,
  virtio: virtioKind,
  memory: memoryKind,
  replay: replayKind,
  record: recordKind,
  postponed: postponedKind,
  erspan: erspanKind,
}

/** The kind of that description takes it. */
const kindOf = ({ kind }: PortDescription): EngineKind<PortDescription> => KINDS[kind]

/** The engine's port of what the control plane has opened. */
export function makePort(
  description: PortDescription,
  place: PortPlace,
  surroundings: PortSurroundings,
): EnginePort {
  return kindOf(description).make(description, place, surroundings)
}

export function farEndMakers(description: PortDescription): readonly FarEndMaker[] {
  return kindOf(description).farEnds?.(description) ?? []
}
