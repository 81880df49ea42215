/** What crosses between the threads about a session of ERSPAN. */

export interface ErspanDescription {
  readonly kind: 'erspan'
  /** A raw socket for GRE, of IPv4 or IPv6 as the address is. */
  readonly fd: number
  /** Of the host that is sent to: 4 bytes, or 16. */
  readonly address: Uint8Array
  readonly header: ErspanHeader
  /** Of the first frame. */
  readonly sequence: number
}

/** What is the same in the headers of all frames. */
export interface ErspanHeader {
  /** 1: type II, 2: type III. */
  readonly version: 1 | 2
  /** 10 bits. */
  readonly sessionId: number
  /** Type II: 20 bits. */
  readonly index: number
  /** Type III: the copies are said to have left the switch. */
  readonly isEgress: boolean
  /** Type III: 6 bits. */
  readonly hardwareId: number
  /** Of GRE, 32 bits; -1: none. */
  readonly key: number
}

/** Answered with the sequence number of the next frame. */
export interface ErspanCall {
  readonly do: 'erspan-sequence'
}
