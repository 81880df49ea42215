/**
 * A guest that takes its memory away while frames are on their way: its rings stay, what its buffers
 * lie in goes. Each buffer has a page of its own, and the page behind it has none, so that a back-end
 * that replaced page after page would split a mapping for each of them.
 *
 *     memfd:  | rings | head of a frame | page | - | page | - | ...
 *             |  what `shrink` leaves   |
 */
import { Window } from '../../src/mem/window.ts'
import { shim } from '../../src/native/shim.ts'
import { SplitDriver, splitLayout } from '../../src/virtio/ring/split-driver.ts'
import { F_PROTOCOL, F_VERSION_1, FrontEnd, u32s, u64, u64s } from './front-end.ts'

const NONBLOCK_CLOEXEC = 0o2004000
const PAGE = 4096
const MEMORY_ADDRESS = 0x1_0000_0000
/** Entries of every ring: 130 chains of 62 descriptors. */
const RING_SIZE = 8192
const RING_STRIDE = 0x4_0000
/** Segments of a frame, the header in the first of them, and bytes of each. */
const SEGMENTS = 62
const SEGMENT_LENGTH = 40
const HEADER_LENGTH = 12
/** Frames of a burst that are cut so. */
const FRAMES = 66

export class ShrinkingGuest {
  readonly frontEnd: FrontEnd
  readonly #memfd: number
  readonly #rings: Window
  readonly #pairs: number
  readonly #drivers: readonly SplitDriver[]
  readonly #kicks: number[] = []
  readonly #ringsLength: number
  readonly #length: number
  #page = 0

  private constructor(path: string, pairs: number) {
    this.frontEnd = FrontEnd.connect(path)
    this.#pairs = pairs
    this.#ringsLength = 2 * pairs * RING_STRIDE + PAGE
    this.#length = this.#ringsLength + 2 ** 30
    this.#memfd = shim.memfdCreate('framepump-test-guest', 1)
    shim.ftruncate(this.#memfd, this.#length)
    this.#rings = Window.map(this.#ringsLength, { fd: this.#memfd })
    // For everybody, behind a header of zeros; one without a sender would be dropped.
    const head = new Uint8Array(this.#rings.buffer, this.#ringsLength - PAGE, SEGMENT_LENGTH)
    head.set([...Array.from({ length: 6 }, () => 0xff), 2, 0, 0, 0, 0, 9], HEADER_LENGTH)
    this.#drivers = Array.from({ length: 2 * pairs }, (_, queue) => {
      const offset = queue * RING_STRIDE
      return new SplitDriver({
        size: RING_SIZE,
        memory: {
          buffer: this.#rings.buffer,
          offset,
          guestAddress: MEMORY_ADDRESS + offset,
        },
        hasEventIdx: false,
        tableEntries: 0,
      })
    })
  }

  /** Connects and runs all queues; none has anything yet. */
  static async start(path: string, pairs: number): Promise<ShrinkingGuest> {
    const guest = new ShrinkingGuest(path, pairs)
    const { frontEnd } = guest
    await frontEnd.negotiate(F_VERSION_1 | F_PROTOCOL)
    const region = u64s(MEMORY_ADDRESS, guest.#length, MEMORY_ADDRESS, 0)
    frontEnd.send(5, Buffer.concat([u32s(1, 0), region]), [guest.#memfd])
    for (let queue = 0; queue < 2 * pairs; queue++) guest.#startQueue(queue)
    await frontEnd.barrier()
    return guest
  }

  #startQueue(queue: number): void {
    const { frontEnd } = this
    const { availOffset, usedOffset } = splitLayout(RING_SIZE, 0)
    const at = MEMORY_ADDRESS + queue * RING_STRIDE
    this.#kicks[queue] = shim.eventfd(0, NONBLOCK_CLOEXEC)
    frontEnd.send(8, u32s(queue, RING_SIZE))
    frontEnd.send(10, u32s(queue, 0))
    frontEnd.send(
      9,
      Buffer.concat([u32s(queue, 0), u64s(at, at + usedOffset, at + availOffset, 0)]),
    )
    frontEnd.send(12, u64(BigInt(queue)), [this.#kicks[queue]])
    frontEnd.send(18, u32s(queue, 1))
  }

  /** The next page with one behind it that nobody uses; from the first on again at the end. */
  #nextPage(): number {
    const page = this.#page
    this.#page = (page + 2) % (2 ** 30 / PAGE)
    return MEMORY_ADDRESS + this.#ringsLength + page * PAGE
  }

  /**
   * A burst of frames into each transmitq, if there is room, with one kick at the end. With `isWhole`
   * the head of each is where it stays.
   */
  sendFrames(isWhole: boolean): void {
    const head = MEMORY_ADDRESS + this.#ringsLength - PAGE
    for (let pair = 0; pair < this.#pairs; pair++) {
      const driver = this.#drivers[2 * pair + 1]
      for (let frame = 0; frame < FRAMES && driver.begin(SEGMENTS, false); frame++) {
        for (let n = 0; n < SEGMENTS; n++) {
          const address = n === 0 && isWhole ? head : this.#nextPage()
          driver.add(address, SEGMENT_LENGTH, false)
        }
        driver.commit()
      }
      driver.publish()
    }
    shim.eventfdWrite(this.#kicks[1])
  }

  /** Fills every receiveq with buffers. */
  postBuffers(): void {
    for (let pair = 0; pair < this.#pairs; pair++) {
      const driver = this.#drivers[2 * pair]
      while (driver.begin(1, false)) {
        driver.add(this.#nextPage(), PAGE, true)
        driver.commit()
      }
      driver.publish()
    }
  }

  /** Takes back what the back-end has used. */
  reclaim(): void {
    for (const driver of this.#drivers) while (driver.takeUsed() >= 0);
  }

  /** Takes everything away but the rings. */
  shrink(): void {
    shim.ftruncate(this.#memfd, this.#ringsLength)
  }

  close(): void {
    this.frontEnd.close()
    for (const fd of this.#kicks) shim.close(fd)
    shim.close(this.#memfd)
    this.#rings.unmap()
  }
}
