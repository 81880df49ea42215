/** Bytes through the kernel's own stacks, between two namespaces, and whether they arrived whole. */
import { createHash } from 'node:crypto'
import type { Lab } from './lab.ts'
import { compiledTool } from './lab.ts'
import { until } from './processes.ts'

const BLOCK = 1 << 16

/** Both programs know the bytes: block n is 64 KiB of the number n and what follows from it. */
const BLOCK_OF = `const block = (n) => { const b = Buffer.alloc(${BLOCK}); let x = n * 2654435761 >>> 0;
  for (let k = 0; k < b.length; k += 4) { x = (Math.imul(x, 1664525) + 1013904223) >>> 0; b.writeUInt32LE(x, k) } return b };`

const SERVER = `const hash = require('crypto').createHash('sha256');
  require('net').createServer((socket) => { socket.on('data', (data) => hash.update(data));
    socket.on('end', () => { socket.end(); console.log(hash.digest('hex')); process.exit() }) })
    .listen(5201, process.argv[1], () => console.log('listening'))`

const CLIENT = `${BLOCK_OF} const [host, blocks] = process.argv.slice(1); let n = 0;
  const socket = require('net').connect(5201, host, () => { const more = () => {
    while (n < +blocks) if (!socket.write(block(n++))) return socket.once('drain', more);
    socket.end() }; more() })`

const UDP_SERVER = `const socket = require('dgram').createSocket(process.argv[1].includes(':') ? 'udp6' : 'udp4');
  let left = +process.argv[2]; const hash = require('crypto').createHash('sha256');
  socket.on('message', (data) => { hash.update(data); const isLast = --left === 0;
    if (isLast) console.log(hash.digest('hex'));
    socket.send('next', 5202, process.argv[3], () => { if (isLast) socket.close() }) });
  socket.bind(5201, process.argv[1], () => console.log('listening'))`

const UDP_CLIENT = `${BLOCK_OF} const [from, to, count, length] = process.argv.slice(1);
  const socket = require('dgram').createSocket(to.includes(':') ? 'udp6' : 'udp4'); let n = 0;
  const next = () => n < +count ? socket.send(block(n++).subarray(0, +length), 5201, to) : socket.close();
  socket.on('message', next); socket.bind(5202, from, next)`

function block(n: number): Buffer {
  const bytes = Buffer.alloc(BLOCK)
  let x = (n * 2654435761) >>> 0
  for (let k = 0; k < BLOCK; k += 4) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    bytes.writeUInt32LE(x, k)
  }
  return bytes
}

function digest(count: number, length: number): string {
  const hash = createHash('sha256')
  for (let n = 0; n < count; n++) hash.update(block(n).subarray(0, length))
  return hash.digest('hex')
}

export interface End {
  readonly netns: string
  readonly address: string
}

/** Sends that many blocks of 64 KiB over TCP. Throws when other bytes arrive, or none. */
export async function transferTcp(lab: Lab, from: End, to: End, blocks: number): Promise<void> {
  const server = lab.start(to.netns, process.execPath, '-e', SERVER, to.address)
  await until('the server listens', () => server.stdout.includes('listening'))
  const client = lab.start(from.netns, process.execPath, '-e', CLIENT, to.address, String(blocks))
  await Promise.all([client.exited, server.exited])
  expectDigest(server.stdout, digest(blocks, BLOCK), client.stderr + server.stderr)
}

/** Sends that many datagrams, each after the answer to the one before. */
export async function transferUdp(
  lab: Lab,
  from: End,
  to: End,
  count: number,
  length: number,
): Promise<void> {
  const answers = [String(count), from.address]
  const server = lab.start(to.netns, process.execPath, '-e', UDP_SERVER, to.address, ...answers)
  await until('the server listens', () => server.stdout.includes('listening'))
  const what = [from.address, to.address, String(count), String(length)]
  const client = lab.start(from.netns, process.execPath, '-e', UDP_CLIENT, ...what)
  await Promise.all([client.exited, server.exited])
  expectDigest(server.stdout, digest(count, length), client.stderr + server.stderr)
}

/** Bytes of a send of the tool: 19 whole segments and a short one. */
export const gsoSendLength = (segment: number): number => 19 * segment + 100

/** Has the kernel cut so many sends into datagrams, or whoever takes that from it. */
export async function transferUdpGso(
  lab: Lab,
  from: End,
  to: End,
  segment: number,
  sends: number,
): Promise<void> {
  const tool = compiledTool('udp-gso')
  const bytes = String(sends * gsoSendLength(segment))
  const server = lab.start(to.netns, tool, 'recv', to.address, '5201', bytes)
  const numbers = [String(segment), String(sends)]
  const client = lab.start(from.netns, tool, 'send', to.address, '5201', ...numbers)
  if ((await client.exited) !== 0) throw new Error(`datagrams are missing: ${client.stderr}`)
  await server.exited
  expectDigest(server.stdout, client.stdout.trim(), client.stderr + server.stderr)
}

function expectDigest(output: string, expected: string, errors: string): void {
  if (!output.includes(expected)) throw new Error(`other bytes arrived: ${output} ${errors}`)
}
