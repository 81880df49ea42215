/**
 * The thread of a driver for an in-process device:
 *
 *     echo      sends every frame back with its addresses exchanged
 *     sink      takes frames and forgets them
 *     generate  sends frames of 60 bytes to nobody, as fast as the device takes them
 */
import { parentPort, workerData } from 'node:worker_threads'
import { EPOLL_CTL_ADD, EPOLLIN } from '../../abi/epoll.ts'
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VNET_HDR_NUM_BUFFERS } from '../../abi/virtio-net.ts'
import { Window } from '../../mem/window.ts'
import { dropThreadCapabilities } from '../../native/capabilities.ts'
import { makeEpoll } from '../../native/event-fd.ts'
import { shim } from '../../native/shim.ts'
import { NetDriver } from '../../virtio/driver/net-driver.ts'

export interface DriverWorkerData {
  readonly mode: 'echo' | 'sink' | 'generate'
  readonly window: number
  readonly features: bigint
  readonly pairs: number
  readonly mac: Uint8Array
  readonly kickFd: number
  readonly callFds: readonly number[]
  /** Of the thread's owner: written after `stop`. */
  readonly wakeFd: number
  readonly sleepMaxMs: number
  /** [0] is 1 when the thread shall end. */
  readonly stop: Int32Array
}

const BURST = 64
/** Idle rounds before the thread sleeps: a round costs some tens of nanoseconds. */
const IDLE_ROUNDS = 1000
const GENERATED_LENGTH = 60
/** IEEE 802 local experimental 1: nobody's stack looks at it. */
const GENERATED_ETHERTYPE = [0x88, 0xb5]
/** Locally administered: nobody has it, so the frames go to every port. */
const GENERATED_DESTINATION = [0x02, 0, 0, 0, 0, 0]
const GENERATE_WAIT_MS = 1

dropThreadCapabilities()
const data = workerData as DriverWorkerData
const memory = Window.view(data.window)
const table = Window.map(4096)
const epoll = makeEpoll()
for (const fd of [...data.callFds, data.wakeFd])
  shim.epollCtl(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, fd)
const driver = new NetDriver({
  buffer: memory.buffer,
  features: data.features,
  pairs: data.pairs,
  kick: () => void shim.eventfdWrite(data.kickFd),
})
const generated = new Uint8Array(GENERATED_LENGTH)
generated.set([...GENERATED_DESTINATION, ...data.mac, ...GENERATED_ETHERTYPE])
const serve = { echo, sink, generate }[data.mode]

/** Serves a queue pair; returns the frames that passed. @hot */
function echo(pair: number): number {
  const { bytes, headerLength } = driver
  let count = 0
  while (count < BURST && driver.receive(pair)) {
    count++
    const to = driver.reserve(pair)
    if (to >= 0) {
      const from = driver.frameOffset
      bytes.copyWithin(to - headerLength, driver.headerOffset, driver.headerOffset + headerLength)
      bytes.copyWithin(to, from, from + driver.frameLength)
      bytes.copyWithin(to, from + 6, from + 12)
      bytes.copyWithin(to + 6, from, from + 6)
      // What a driver may say of a frame that it sends, and no number of buffers.
      bytes[to - headerLength] &= VIRTIO_NET_HDR_F_NEEDS_CSUM
      bytes.fill(0, to - headerLength + VNET_HDR_NUM_BUFFERS, to)
      driver.submit(pair, driver.frameLength)
    }
    driver.release(pair)
  }
  if (count > 0) driver.flush(pair)
  return count
}

/** @hot */
function sink(pair: number): number {
  let count = 0
  while (count < BURST && driver.receive(pair)) {
    driver.release(pair)
    count++
  }
  if (count > 0) driver.flush(pair)
  return count
}

/** @hot */
function generate(pair: number): number {
  sink(pair)
  let count = 0
  for (; count < BURST; count++) {
    const to = driver.reserve(pair)
    if (to < 0) break
    driver.bytes.set(generated, to)
    driver.submit(pair, GENERATED_LENGTH)
  }
  if (count > 0) driver.flush(pair)
  return count
}

/** Until the device calls, or for a moment when it is about to give buffers back. @hot */
function sleep(): void {
  const timeoutMs = data.mode === 'generate' ? GENERATE_WAIT_MS : data.sleepMaxMs
  if (!driver.enableCalls()) shim.epollWait(epoll, table.id, 0, 1, timeoutMs)
  for (let at = 0; at < data.callFds.length; at++) shim.eventfdRead(data.callFds[at])
  driver.disableCalls()
}

function run(): void {
  let idle = 0
  while (Atomics.load(data.stop, 0) === 0) {
    let count = 0
    for (let pair = 0; pair < data.pairs; pair++) count += serve(pair)
    idle = count > 0 ? 0 : idle + 1
    if (idle > IDLE_ROUNDS) sleep()
  }
  shim.close(epoll)
  table.unmap()
  memory.detach()
  parentPort!.close()
}

driver.disableCalls()
parentPort!.once('message', run)
parentPort!.postMessage('ready')
