/**
 * What ports are to VLANs: into which VLAN a frame comes that enters by one, whether it may leave by another,
 * and with which tag. Names and meaning as in Open vSwitch (vswitchd.conf.db(5), "VLAN Configuration").
 *
 *     mode             VID 0 enters   other VIDs enter            leaves, and how
 *     transparent      0              as they are                 all, as it came or as its VLAN says
 *     trunk            0              as they are, of `trunks`    `trunks`: tagged, VLAN 0 untagged
 *     access           `tag`          none                        `tag`: untagged
 *     native-tagged    `tag`          as they are, of `trunks`    `tag` and `trunks`: tagged
 *     native-untagged  `tag`          as they are, of `trunks`    the same, `tag` untagged
 *     dot1q-tunnel     `tag`          `tag`, if in `cvlans`       `tag`: without its outer tag
 *
 * The VLAN of a frame follows from the port by which it came and the tag that it came with, so nothing of it
 * is noted per frame. What its first 16 bytes do not say is whether there is another tag inside: who asks,
 * reads on (engine/forward.ts).
 */
import { isSameTag, makeTag, pcpOf, TPID_8100, vidOf, VlanSet, withVid } from '../wire/vlan.ts'

export const MODE_TRANSPARENT = 0
export const MODE_TRUNK = 1
export const MODE_ACCESS = 2
export const MODE_NATIVE_TAGGED = 3
export const MODE_NATIVE_UNTAGGED = 4
export const MODE_TUNNEL = 5

/** Where a frame leaves untagged: it does; it keeps a tag of VID 0 if it has a priority; if it has any. */
export const PRIORITY_NEVER = 0
export const PRIORITY_IF_NONZERO = 1
export const PRIORITY_ALWAYS = 2

/** Of a frame that is not of any VLAN that its port has. */
export const NO_VLAN = -1
/** A result of `tagOut`: the frame leaves as it came. */
export const AS_IT_CAME = -1

const ALL: VlanSet = new VlanSet(null)

/** With which tags frames leave that came in by one port and leave by another. */
export interface TagRules {
  /** Frames that come in by the port have their own tags inside another one. @hot */
  isTunnel(port: number): boolean
  /** It makes a difference to the port what tag is inside. @hot */
  asksInner(port: number): boolean
  /** See `VlanPorts`. @hot */
  tagOut(from: number, to: number, outer: number): number
  /** The tag in the place of the outer one that goes, of a frame without another tag inside; 0: none. @hot */
  tagInPlace(to: number, outer: number): number
}

export class VlanPorts implements TagRules {
  readonly #mode: Uint8Array
  readonly #tag: Int32Array
  /** The tag that a tunnel pushes. */
  readonly #tunnelTag: Int32Array
  readonly #priorityTags: Uint8Array
  readonly #trunks: VlanSet[]
  readonly #cvlans: VlanSet[]

  constructor(ports: number) {
    this.#mode = new Uint8Array(ports)
    this.#tag = new Int32Array(ports)
    this.#tunnelTag = new Int32Array(ports)
    this.#priorityTags = new Uint8Array(ports)
    this.#trunks = Array.from({ length: ports }, () => ALL)
    this.#cvlans = Array.from({ length: ports }, () => ALL)
  }

  /** `tpid` as TPID_8100; null: all VLANs. */
  set(
    port: number,
    mode: number,
    tag: number,
    tpid: number,
    priorityTags: number,
    trunks: VlanSet | null,
    cvlans: VlanSet | null,
  ): void {
    this.#mode[port] = mode
    this.#tag[port] = tag
    this.#tunnelTag[port] = makeTag(tpid, 0, tag)
    this.#priorityTags[port] = priorityTags
    this.#trunks[port] = trunks ?? ALL
    this.#cvlans[port] = cvlans ?? ALL
  }

  clear(port: number): void {
    this.set(port, MODE_TRANSPARENT, 0, TPID_8100, PRIORITY_NEVER, null, null)
  }

  /** The VLAN of a frame with this outer tag (0: none) that comes in by the port, or NO_VLAN. @hot */
  enter(port: number, outer: number): number {
    const vid = vidOf(outer)
    const tag = this.#tag[port]
    switch (this.#mode[port]) {
      case MODE_TRANSPARENT:
        return vid
      case MODE_ACCESS:
        return vid === 0 ? tag : NO_VLAN
      case MODE_TUNNEL:
        return this.#cvlans[port].has(vid) ? tag : NO_VLAN
      case MODE_TRUNK:
        return this.#trunks[port].has(vid) ? vid : NO_VLAN
      default:
        if (vid === 0) return tag
        return vid === tag || this.#trunks[port].has(vid) ? vid : NO_VLAN
    }
  }

  /** Frames of the VLAN may leave by the port, as far as they have no tag inside. @hot */
  carries(port: number, vlan: number): boolean {
    switch (this.#mode[port]) {
      case MODE_TRANSPARENT:
        return true
      case MODE_ACCESS:
      case MODE_TUNNEL:
        return vlan === this.#tag[port]
      case MODE_TRUNK:
        return this.#trunks[port].has(vlan)
      default:
        // Untagged, a frame of VLAN 0 would look like one of the native VLAN.
        if (vlan === 0) return false
        return vlan === this.#tag[port] || this.#trunks[port].has(vlan)
    }
  }

  /** It makes a difference to the port what tag is inside. */
  asksInner(port: number): boolean {
    return this.#mode[port] === MODE_ACCESS || this.#mode[port] === MODE_TUNNEL
  }

  /** Frames of a VLAN that the port carries may leave by it when the tag inside has this VID. @hot */
  carriesInner(port: number, inner: number): boolean {
    return this.#mode[port] === MODE_ACCESS ? inner === 0 : this.#cvlans[port].has(inner)
  }

  /** Frames that come in by the port have their own tags inside another one. @hot */
  isTunnel(port: number): boolean {
    return this.#mode[port] === MODE_TUNNEL
  }

  /**
   * The tag with which a frame leaves by `to` that came in by `from` with this outer tag: 0, none, or
   * AS_IT_CAME. It stands in the place of that, but that of a tunnel stands in front of it.
   * @hot
   */
  tagOut(from: number, to: number, outer: number): number {
    const inMode = this.#mode[from]
    if (inMode === MODE_TUNNEL) {
      return this.#pushedOut(to, this.#tunnelTag[from], outer)
    }
    let tag = outer
    if (vidOf(outer) === 0 && inMode >= MODE_ACCESS) {
      const tpid = outer === 0 ? TPID_8100 : outer & 0xffff
      tag = makeTag(tpid, outer, this.#tag[from])
    }
    const out = this.#leave(to, tag, outer !== 0)
    if (out === outer) return AS_IT_CAME
    return out !== 0 && isSameTag(out, outer) ? AS_IT_CAME : out
  }

  /** The same of a copy that is given to the VLAN `vid`, whatever VLAN the frame is of. @hot */
  tagOutOfCopy(vid: number, from: number, to: number, outer: number): number {
    if (this.#mode[from] === MODE_TUNNEL) {
      return this.#pushedOut(to, withVid(this.#tunnelTag[from], vid), outer)
    }
    const tag = outer === 0 ? makeTag(TPID_8100, 0, vid) : withVid(outer, vid)
    const out = this.#leave(to, tag, outer !== 0)
    return out === outer ? AS_IT_CAME : out
  }

  /** What stands in front of the customer's frame, which has this outer tag, where a tunnel pushed that one. @hot */
  #pushedOut(to: number, pushed: number, outer: number): number {
    const isBare = outer === 0 && this.#mode[to] === MODE_TUNNEL
    const out = isBare ? this.tagInPlace(to, pushed) : this.#leave(to, pushed, true)
    return out === 0 ? AS_IT_CAME : out
  }

  /** The tag of a frame on the switch becomes this one at the port; `isKept`: it came with a tag. @hot */
  #leave(port: number, tag: number, isKept: boolean): number {
    const mode = this.#mode[port]
    const vid = vidOf(tag)
    if (mode === MODE_TRANSPARENT || mode === MODE_NATIVE_TAGGED) return tag
    // What is inside is a customer's, whose tags stay: see tagInPlace.
    if (mode === MODE_TUNNEL) return 0
    if (
      mode === MODE_TRUNK ? vid !== 0 : mode === MODE_NATIVE_UNTAGGED && vid !== this.#tag[port]
    ) {
      return tag
    }
    if (!isKept || !this.#keepsPriority(port, tag)) return 0
    return vid === 0 ? tag : makeTag(TPID_8100, tag, 0)
  }

  /** @hot */
  tagInPlace(to: number, outer: number): number {
    return this.#keepsPriority(to, outer) ? makeTag(TPID_8100, outer, 0) : 0
  }

  /** Where this tag would go, one of VID 0 stays. @hot */
  #keepsPriority(port: number, tag: number): boolean {
    const priorityTags = this.#priorityTags[port]
    if (pcpOf(tag) === 0 && priorityTags !== PRIORITY_ALWAYS) return false
    // A trunk leaves a priority as it came, whatever it shall do with tags.
    return priorityTags !== PRIORITY_NEVER || this.#mode[port] === MODE_TRUNK
  }
}
