/** A TCP connection that goes on until it is told to end, and whether all of its bytes arrived. */
import type { Lab } from './lab.ts'
import type { Background } from './processes.ts'
import { until } from './processes.ts'
import type { End } from './transfer.ts'

const SERVER = `const hash = require('crypto').createHash('sha256'); let length = 0;
  require('net').createServer((socket) => {
    socket.on('data', (data) => { hash.update(data); length += data.length });
    socket.on('end', () => { console.log(length + ' ' + hash.digest('hex')); process.exit() })
    socket.on('error', (error) => { console.log(error.code); process.exit() })
  }).listen(5301, process.argv[1], () => console.log('listening'))`

/** Random bytes, 64 KiB every 2 ms. */
const CLIENT = `const { createHash, randomBytes } = require('crypto'); const hash = createHash('sha256');
  let length = 0; const block = randomBytes(65536);
  const socket = require('net').connect(5301, process.argv[1], () => {
    const timer = setInterval(() => { block.writeUInt32LE(length / 65536, 0); hash.update(block);
      length += block.length; socket.write(Buffer.from(block)) }, 2);
    process.stdin.on('end', () => { clearInterval(timer);
      console.log(length + ' ' + hash.digest('hex')); socket.end() }).resume() })
  socket.on('error', (error) => { console.log(error.code); process.exit() })`

export class SteadyTransfer {
  readonly #server: Background
  readonly #client: Background

  private constructor(server: Background, client: Background) {
    this.#server = server
    this.#client = client
  }

  static async start(lab: Lab, from: End, to: End): Promise<SteadyTransfer> {
    const server = lab.start(to.netns, process.execPath, '-e', SERVER, to.address)
    await until('the server listens', () => server.stdout.includes('listening'))
    return new SteadyTransfer(
      server,
      lab.start(from.netns, process.execPath, '-e', CLIENT, to.address),
    )
  }

  /** Lengths and digests of what was sent and of what came. */
  async end(): Promise<{ sent: string; received: string }> {
    this.#client.child.stdin!.end()
    await Promise.all([this.#client.exited, this.#server.exited])
    const received = this.#server.stdout.replace('listening\n', '')
    return { sent: this.#client.stdout.trim(), received: received.trim() }
  }
}
