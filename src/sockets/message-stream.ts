/**
 * Splits a byte stream into vhost-user messages: 12 bytes of header, then as many of payload as it
 * says. Descriptors come with the first byte of a header, so no more is read at once than belongs to
 * one message. What is in a message is for the session (vhost-user/) to judge.
 * Source: vhost-user protocol, "Message Specification".
 */
import { VHOST_USER_HEADER_LENGTH } from '../abi/vhost-user.ts'

/** More than any message of the protocol has. */
const PAYLOAD_LENGTH_MAX = 4096

/** A message as it came; what the payload holds is not checked. */
export interface RawMessage {
  readonly request: number
  readonly flags: number
  readonly payload: Uint8Array
}

export type MessageItem =
  { readonly message: RawMessage; readonly error?: undefined } | { readonly error: string }

export class MessageStream {
  readonly #bytes: Uint8Array = new Uint8Array(VHOST_USER_HEADER_LENGTH + PAYLOAD_LENGTH_MAX)
  readonly #view: DataView = new DataView(this.#bytes.buffer)
  #length = 0
  #isBroken = false

  /** `begun`: of a message in the making, as `pending` had it. */
  constructor(begun: Uint8Array = new Uint8Array(0)) {
    if (begun.length > 0) this.push(begun)
  }

  /** Of the message in the making, so far. */
  get pending(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  /** Bytes that may be read next: to the end of the header, then to the end of the payload. */
  get wanted(): number {
    if (this.#length < VHOST_USER_HEADER_LENGTH) return VHOST_USER_HEADER_LENGTH - this.#length
    return VHOST_USER_HEADER_LENGTH + this.#payloadLength - this.#length
  }

  get #payloadLength(): number {
    return this.#view.getUint32(8, true)
  }

  /** At most `wanted` bytes; returns the message that they complete, if they do. */
  push(bytes: Uint8Array): MessageItem[] {
    if (this.#isBroken) return []
    this.#bytes.set(bytes, this.#length)
    this.#length += bytes.length
    if (this.#length < VHOST_USER_HEADER_LENGTH) return []
    const payloadLength = this.#payloadLength
    if (payloadLength > PAYLOAD_LENGTH_MAX) {
      this.#isBroken = true
      return [{ error: `a message of ${payloadLength} bytes` }]
    }
    if (this.#length < VHOST_USER_HEADER_LENGTH + payloadLength) return []
    this.#length = 0
    const message = {
      request: this.#view.getUint32(0, true),
      flags: this.#view.getUint32(4, true),
      payload: this.#bytes.slice(
        VHOST_USER_HEADER_LENGTH,
        VHOST_USER_HEADER_LENGTH + payloadLength,
      ),
    }
    return [{ message }]
  }
}
