/**
 * The way out of the switch by one port: what the port can be given, and the stages that frames go through
 * before it has them. They are put together when the port comes or what it takes changes, and not asked
 * about per frame. Where there is nothing to do, the port itself is what frames are given to.
 *
 *     plain       -> port            the port takes whatever these frames need
 *     merging     -> merge -> port   the same, of a sender without TSO, for a port that takes TSO
 *     finishing   -> finish -> port  the port lacks what some of them need
 *     tagPlain, tagMerging, tagFinishing: -> tag -> the same, where VLAN options of either port may change tags
 *
 * Tags come first: a GSO frame is given its tag once, not segment by segment, and captures see it whole, with
 * the tag with which it leaves. Merging sees the tags with which segments leave; those of a flow whose tags
 * differ stay apart.
 *
 * The mtu is no stage: where lists are made it is compared with a length that is there anyway, and a frame
 * that does not leave is in no list, so that captures of the port do not show it either.
 */
import { TUN_F_TSO4, TUN_F_TSO6 } from '../abi/if-tun.ts'
import { Finisher, FinishStage } from '../offload/finish-stage.ts'
import { Merger, MergeStage } from '../offload/merge-stage.ts'
import type { Burst } from '../mem/burst.ts'
import { FrameFilter } from '../mem/frame-filter.ts'
import { Cutter } from '../offload/cut-stage.ts'
import type { FrameTaker } from '../offload/stage.ts'
import { Retagger } from '../offload/retag-stage.ts'
import type { LeavingWatch } from '../offload/tag-stage.ts'
import { Tagger, TagStage } from '../offload/tag-stage.ts'
import type { VlanPorts } from '../offload/vlan-ports.ts'
import type { EnginePort } from '../port/contract.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../wire/ethernet.ts'
import { isGso } from '../wire/vnet-hdr.ts'

const TSO: number = TUN_F_TSO4 | TUN_F_TSO6
/** Longest frame for a port without an mtu: more than any slot holds. */
export const NO_LIMIT = 0x7fff_ffff
/** Two tags may stand before the payload without counting against the mtu. */
const L2_OVERHEAD: number = ETHER_HEADER_LENGTH + 2 * VLAN_TAG_LENGTH
/** What a frame costs that is given to a port which does not say, in nanoseconds: about that of a copy. */
const DELIVERY_NS = 100

/** What it costs to cut a segment, in nanoseconds: about, and without what the kernel or a guest make of it. */
export const SEGMENT_NS = 400

/** What the stages of all egresses share. */
export class StageMachinery {
  readonly finisher: Finisher
  readonly merger: Merger
  readonly tagger: Tagger
  readonly cutter: Cutter
  readonly #makeRetagger: () => Retagger
  #retagger: Retagger | null = null
  #frameFilter: FrameFilter | null = null

  /** `flushWrites` completes everything that ports were given. */
  constructor(
    counters: Float64Array,
    vlans: VlanPorts,
    watch: LeavingWatch,
    flushWrites: () => void,
  ) {
    this.finisher = new Finisher(counters, flushWrites)
    this.merger = new Merger(counters, flushWrites)
    this.tagger = new Tagger(vlans, counters, watch, flushWrites)
    this.cutter = new Cutter(flushWrites)
    this.#makeRetagger = () => new Retagger(vlans, counters, watch, flushWrites)
  }

  /** Made for the first who asks: few switches have copies that go into a VLAN. */
  get retagger(): Retagger {
    this.#retagger ??= this.#makeRetagger()
    return this.#retagger
  }

  /** Likewise. */
  get frameFilter(): FrameFilter {
    this.#frameFilter ??= new FrameFilter()
    return this.#frameFilter
  }

  close(): void {
    this.#frameFilter?.close()
    this.#retagger?.close()
    this.tagger.close()
    this.cutter.close()
    this.finisher.close()
    this.merger.close()
  }
}

export class Egress {
  readonly port: EnginePort
  readonly deliveryNs: number
  /** What comes in by the port lies in memory that others write to. */
  readonly isForeign: boolean
  /** TUN_F_* bits that the port can be given. */
  txOffloads = 0
  /** L2 bytes of the longest frame. */
  lengthMax: number = NO_LIMIT
  /** Some frame of the current list needs what the port lacks. */
  isShort = false
  plain: FrameTaker
  merging: FrameTaker
  finishing: FrameTaker
  /** The same with a tag stage before it. */
  tagPlain: FrameTaker
  tagMerging: FrameTaker
  tagFinishing: FrameTaker
  readonly #machinery: StageMachinery

  constructor(port: EnginePort, machinery: StageMachinery) {
    this.port = port
    this.deliveryNs = port.deliveryNs ?? DELIVERY_NS
    this.isForeign = port.isGuest === true
    this.plain = port
    this.merging = port
    this.finishing = port
    this.tagPlain = port
    this.tagMerging = port
    this.tagFinishing = port
    this.#machinery = machinery
    this.setTxOffloads(port.txOffloads)
  }

  /** 0: no limit. */
  setMtu(mtu: number): void {
    this.lengthMax = mtu === 0 ? NO_LIMIT : mtu + L2_OVERHEAD
  }

  /**
   * Frame k of the burst is longer than the mtu lets pass. A GSO frame leaves the next hop in segments:
   * hdr_len + gso_size is what the mtu limits.
   * @hot
   */
  isTooLong(burst: Burst, k: number): boolean {
    const gso = burst.gso[k]
    const isCut = burst.needs[k] !== 0 && isGso(gso)
    const onWire = isCut ? (gso >>> 16) + (burst.gsoSize[k] & 0xffff) : burst.length[k]
    return onWire > this.lengthMax
  }

  /** What the port can be given has changed: its guest has negotiated. */
  setTxOffloads(txOffloads: number): void {
    this.txOffloads = txOffloads
    this.#compose()
  }

  #compose(): void {
    const { port, txOffloads } = this
    const { finisher, merger, tagger } = this.#machinery
    this.plain = port
    this.finishing = new FinishStage(finisher, port, port.index, txOffloads)
    const takesTso = (txOffloads & TSO) !== 0
    this.merging = takesTso ? new MergeStage(merger, port, port.index, txOffloads) : port
    this.tagPlain = new TagStage(tagger, this.plain, port.index)
    this.tagMerging = new TagStage(tagger, this.merging, port.index)
    this.tagFinishing = new TagStage(tagger, this.finishing, port.index)
  }
}
