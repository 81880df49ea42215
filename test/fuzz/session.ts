/**
 * Byte strings as a hostile front-end: before each message a byte says how many descriptors come
 * with it. Every descriptor has one owner at any time and is closed in the end, replies are well
 * formed, and all that goes wrong is a ProtocolError.
 */
import { ProtocolError } from '../../src/errors.ts'
import { MessageStream } from '../../src/sockets/message-stream.ts'
import { FakeConnection } from '../support/fake-device.ts'
import type { Features } from './features.ts'
import { check, Operands } from './features.ts'

const FIRST_FD = 1000
const MESSAGES_MAX = 200

export async function fuzzSession(input: Uint8Array, seen: Features): Promise<void> {
  const operands = new Operands(input)
  const connection = new FakeConnection()
  const stream = new MessageStream()
  let nextFd = FIRST_FD
  let before = 0
  for (let count = 0; count < MESSAGES_MAX && !operands.isAtEnd; count++) {
    const fds = Array.from({ length: operands.byte() & 15 }, () => nextFd++)
    let items: ReturnType<MessageStream['push']> = []
    while (items.length === 0 && !operands.isAtEnd)
      items = stream.push(operands.take(stream.wanted))
    // The connection ends in the middle of a message, or with one that is too long.
    const [item] = items
    if (item === undefined || item.error !== undefined) {
      connection.closed.push(...fds)
      break
    }
    const { message } = item
    let outcome = 0
    try {
      const reply = await connection.session.handle(message, fds)
      if (reply !== null) {
        const header = new Uint32Array(reply.slice(0, 12).buffer)
        check(header[0] === message.request && header[1] === 5, 'a reply has its request and flags')
        check(header[2] === reply.length - 12, 'a reply has the length that it says')
        outcome = reply.length === 20 ? 1 + reply[12] : 300
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      // A real connection ends here; going on only makes it harder.
      seen.addText(error.message)
      outcome = 301
    }
    seen.add(before, message.request & 63, outcome)
    before = message.request & 63
  }
  await connection.session.close()
  const all = [...connection.closed, ...connection.device.fds].sort((a, b) => a - b)
  check(all.length === nextFd - FIRST_FD, `${all.length} of ${nextFd - FIRST_FD} descriptors`)
  for (const [at, fd] of all.entries())
    check(fd === FIRST_FD + at, `descriptor ${fd} has one owner`)
}
