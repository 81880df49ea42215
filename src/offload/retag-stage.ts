/**
 * Gives copies the tags of a VLAN that is not that of their originals: what a port of the VLAN would be
 * given if they were of it. A tag that they have gets another VID, those without are given one.
 */
import type { Burst } from '../mem/burst.ts'
import type { FrameTaker } from './stage.ts'
import type { LeavingWatch } from './tag-stage.ts'
import { Tagger } from './tag-stage.ts'
import type { TagRules, VlanPorts } from './vlan-ports.ts'

/** Its memory is in use only while somebody has copies. */
export class Retagger {
  readonly #rules: CopyRules
  readonly #tagger: Tagger

  /** `flushWrites` completes everything that ports were given. */
  constructor(
    vlans: VlanPorts,
    counters: Float64Array,
    watch: LeavingWatch,
    flushWrites: () => void,
  ) {
    this.#rules = new CopyRules(vlans)
    this.#tagger = new Tagger(this.#rules, counters, watch, flushWrites)
  }

  /** Copies of what came in by `from` leave by `to` as frames of the VLAN. @hot */
  retag(
    next: FrameTaker,
    vlan: number,
    from: number,
    to: number,
    burst: Burst,
    list: Int32Array,
    count: number,
    queue: number,
  ): void {
    this.#rules.vlan = vlan
    this.#tagger.beginBurst(from, true)
    this.#tagger.tag(next, to, burst, list, 0, count, queue)
  }

  close(): void {
    this.#tagger.close()
  }
}

class CopyRules implements TagRules {
  vlan = 0
  readonly #vlans: VlanPorts

  constructor(vlans: VlanPorts) {
    this.#vlans = vlans
  }

  /** @hot */
  isTunnel(port: number): boolean {
    return this.#vlans.isTunnel(port)
  }

  /** @hot */
  asksInner(port: number): boolean {
    return this.#vlans.asksInner(port)
  }

  /** @hot */
  tagOut(from: number, to: number, outer: number): number {
    return this.#vlans.tagOutOfCopy(this.vlan, from, to, outer)
  }

  /** @hot */
  tagInPlace(to: number, outer: number): number {
    return this.#vlans.tagInPlace(to, outer)
  }
}
