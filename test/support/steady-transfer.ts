/** A TCP connection that goes on until it is told to end, and whether all of its bytes arrived. */
import type { Lab } from './lab.ts'
import type { Background } from './processes.ts'
import { until } from './processes.ts'
import type { Guest } from './qemu.ts'
import type { End } from './transfer.ts'

const SERVER = `const hash = require('crypto').createHash('sha256'); let length = 0;
  require('net').createServer((socket) => {
    socket.on('data', (data) => { hash.update(data); length += data.length });
    socket.on('end', () => { console.log(length + ' ' + hash.digest('hex')); process.exit() })
    socket.on('error', (error) => { console.log(error.code); process.exit() })
  }).listen(5301, process.argv[1], () => console.log('listening'))`

/** By default 32 MB a second. */
const EVERY_MS = 2

/** Random bytes, 64 KiB every so many milliseconds. */
const CLIENT = `const { createHash, randomBytes } = require('crypto'); const hash = createHash('sha256');
  let length = 0; const block = randomBytes(65536);
  const socket = require('net').connect(5301, process.argv[1], () => {
    const timer = setInterval(() => { block.writeUInt32LE(length / 65536, 0); hash.update(block);
      length += block.length; socket.write(Buffer.from(block)) }, +process.argv[2]);
    process.stdin.on('end', () => { clearInterval(timer);
      console.log(length + ' ' + hash.digest('hex')); socket.end() }).resume() })
  socket.on('error', (error) => { console.log(error.code); process.exit() })`

/** Of a guest, where its end writes length and digest. */
const [GUEST_FIFO, GUEST_LENGTH, GUEST_SUM] = ['fifo', 'length', 'sum'].map(
  (name) => `/tmp/transfer-${name}`,
)

export class SteadyTransfer {
  readonly #client: Background
  /** Length and digest of what came. */
  readonly #received: () => Promise<string>

  private constructor(client: Background, received: () => Promise<string>) {
    this.#client = client
    this.#received = received
  }

  static async start(lab: Lab, from: End, to: End, everyMs = EVERY_MS): Promise<SteadyTransfer> {
    const server = lab.start(to.netns, process.execPath, '-e', SERVER, to.address)
    await until('the server listens', () => server.stdout.includes('listening'))
    return new SteadyTransfer(startClient(lab, from, to.address, everyMs), async () => {
      await server.exited
      return server.stdout.replace('listening\n', '').trim()
    })
  }

  static async toGuest(
    lab: Lab,
    from: End,
    guest: Guest,
    address: string,
    everyMs: number,
  ): Promise<SteadyTransfer> {
    await guest.output(`mkfifo ${GUEST_FIFO} && wc -c <${GUEST_FIFO} >${GUEST_LENGTH} &`)
    // At the end of its input it would say that it sends no more, and be taken for one that has gone.
    const received = `sleep 86400 | nc -l -p 5301 | tee ${GUEST_FIFO} | sha256sum`
    await guest.output(`${received} >${GUEST_SUM} &`)
    const isListening = async (): Promise<boolean> =>
      (await guest.output('netstat -ltn')).includes(':5301')
    await until('the server listens', isListening)
    return new SteadyTransfer(startClient(lab, from, address, everyMs), async () => {
      let sum = ''
      await until('the guest has all of it', async () => {
        sum = await guest.output(`cat ${GUEST_LENGTH} ${GUEST_SUM}`)
        return /^\d+\n[0-9a-f]{64} /.test(sum)
      })
      return sum.replace('\n', ' ').slice(0, sum.indexOf(' '))
    })
  }

  /** Lengths and digests of what was sent and of what came. */
  async end(): Promise<{ sent: string; received: string }> {
    this.#client.child.stdin!.end()
    await this.#client.exited
    return { sent: this.#client.stdout.trim(), received: await this.#received() }
  }
}

function startClient(lab: Lab, from: End, address: string, everyMs: number): Background {
  return lab.start(from.netns, process.execPath, '-e', CLIENT, address, String(everyMs))
}
