/** One switch takes over from another, as two processes do it: what is said as JSON, descriptors by SCM_RIGHTS. */
import type { HandedSwitch, Switch } from '../../src/index.ts'
import { shim } from '../../src/native/shim.ts'
import type { Lab } from './lab.ts'
import { frameHex, frameNumber } from './lab.ts'

const SOCK_SEQPACKET = 5

/** Another descriptor of the same open file, as the receiver of a message has it. */
export function passOn(fd: number): number {
  const pair = new Int32Array(2)
  if (shim.socketPair(SOCK_SEQPACKET, pair) < 0) throw new Error('socketpair')
  const byte = new Uint8Array(1)
  const [fds, info] = [new Int32Array(1), new Int32Array(2)]
  const sent = shim.sendMsg(pair[0], byte, 0, 1, Int32Array.of(fd), 1, 0)
  const got = shim.recvMsg(pair[1], byte, fds, info, 0)
  for (const end of pair) shim.close(end)
  if (sent < 0 || got < 0 || info[0] !== 1) throw new Error(`descriptor ${fd} was not passed on`)
  return fds[0]
}

/** What the other process gets. */
export function received(handed: HandedSwitch): HandedSwitch {
  const copy = JSON.parse(JSON.stringify(handed)) as HandedSwitch
  const withFds = <T extends { readonly fds: readonly number[] }>(one: T): T => ({
    ...one,
    fds: one.fds.map(passOn),
  })
  return { ...copy, ports: copy.ports.map(withFds), captures: copy.captures.map(withFds) }
}

let moves = 0

/**
 * The whole way; resolves when `to` reads and nothing is left of `from`. Returns the pause in milliseconds. Every
 * third time without a preview.
 */
export async function moveSwitch(
  from: Switch,
  to: Switch,
  excluded: readonly string[] = [],
): Promise<number> {
  const outline = JSON.parse(JSON.stringify(await from.outlineHandOver(excluded)))
  const isPreviewed = moves++ % 3 < 2
  const preview = isPreviewed ? received(await from.previewHandOver(excluded)) : undefined
  const held = await to.prepareTakeOver(outline, preview)
  const started = performance.now()
  const options = isPreviewed ? { previewed: held } : {}
  const handed = received(await from.handOver(excluded, options))
  await to.takeOver(handed)
  if (handed.runState === 'running') await to.resume()
  else await to.pause()
  const pauseMs = performance.now() - started
  await from.handedOver()
  await from.close()
  return pauseMs
}

export const numbers = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, k) => first + k)

/** Numbered frames both ways between two namespaces; resolves with the numbers that arrived, in their order. */
export async function exchange(
  lab: Lab,
  netns: readonly string[],
  count: number,
  meanwhile: () => Promise<void>,
): Promise<number[][]> {
  const macs = netns.map((name) => lab.mac(name))
  const receivers = await Promise.all(netns.map((name) => lab.receive(name, count)))
  const sending = netns.map((name, k) =>
    lab.send(
      name,
      numbers(0, count).map((n) => frameHex(macs[1 - k], macs[k], n)),
    ),
  )
  await meanwhile()
  await Promise.all(sending)
  return Promise.all(receivers.map(async (r) => (await r.frames()).map((f) => frameNumber(f))))
}
