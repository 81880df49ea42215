/** What of a TAP follows the guest at the other end of its link (switch/agree.ts). */

/** What of an open TAP follows the guest at the other end of a link. */
export interface TapShape {
  /** Bytes of vnet_hdr before each frame; 0: none, which never changes. */
  readonly vnetHdrLength: number
  /** By queue. */
  readonly attached: readonly boolean[]
}

/** What has become of it, and what the kernel refused. */
export interface ShapedTap extends TapShape {
  readonly failures: readonly string[]
}

/** An open TAP as far as it follows. */
export class FollowingTap {
  /** As it was opened. */
  readonly preset: TapShape
  /** What the engine was asked for last, and what it made of what it has answered. */
  asked: TapShape
  current: TapShape
  /** Lengths of the vnet_hdr that the engine has been asked for and has not answered. */
  readonly #coming: number[] = []
  /** Told once. */
  failure = ''

  /** `now`: what it is, when that is not as it was opened. */
  constructor(vnetHdrLength: number, queues: number, now?: TapShape) {
    const attached = Array.from({ length: queues }, () => true)
    this.preset = { vnetHdrLength, attached }
    this.asked = now ?? this.preset
    this.current = this.asked
  }

  /** The shortest that its vnet_hdr is, or is about to be. */
  get leastVnetHdrLength(): number {
    return Math.min(this.current.vnetHdrLength, ...this.#coming)
  }

  began({ vnetHdrLength }: TapShape): void {
    this.#coming.push(vnetHdrLength)
  }

  ended({ vnetHdrLength }: TapShape): void {
    this.#coming.splice(this.#coming.indexOf(vnetHdrLength), 1)
  }
}
