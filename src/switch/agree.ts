/**
 * What ports owe to one another, as one function from what they are to what is to be done: which offloads
 * the kernel may leave to us on a TAP (TUNSETOFFLOAD), whose TCP segments are merged, and what of a TAP
 * follows the guest at the other end of its link.
 *
 * - On the switch a TAP is asked for all offloads: what an egress cannot take is done in software for
 *   that egress alone (offload/), so that no port slows another. On a link it is what the other end
 *   takes, as the kernel segments better.
 * - On a link to a guest, frames pass with their vnet_hdr unchanged, and a queue of the TAP is attached
 *   while the guest has its queue pair enabled. A TAP without a guest is as it was when it was opened.
 *   A queue is attached at once. It is detached when the guest has not used it for a while, because a
 *   front-end enables its pairs one after another, and the frames that wait in a queue are lost.
 */
import type { ControlPort } from '../port/control-port.ts'
import type { FollowingTap, TapShape } from '../port/shape.ts'
import { OFFLOADS_ALL, OFFLOADS_PLAIN } from '../wire/vnet-hdr.ts'

/** What is looked at of the port at the other end of a link. */
export type AgreeingPeer = Pick<
  ControlPort,
  'isConnected' | 'isPairEnabled' | 'txOffloads' | 'vnetHdrLength'
>

export interface AgreeingPort {
  readonly index: number
  readonly open: Pick<ControlPort, 'offloads'> & {
    readonly tap?: Pick<FollowingTap, 'preset' | 'asked'>
  }
  readonly peer: { readonly open: AgreeingPeer } | undefined
  readonly failure: string | undefined
  /** Its segments are to be merged, as its frames are now; and as the engine was told last. */
  readonly merges: boolean
  readonly wasMerging: boolean
}

export type AgreementAction =
  /** TUN_F_* bits. */
  | { readonly do: 'set-offloads'; readonly port: number; readonly offloads: number }
  | { readonly do: 'set-merging'; readonly port: number; readonly isMerging: boolean }
  | { readonly do: 'shape'; readonly port: number; readonly shape: TapShape }

export interface Agreed {
  /** In this order: tunnels are off before a vnet_hdr becomes too short for them. */
  readonly actions: readonly AgreementAction[]
  /** Queues are to be detached, if nothing changes for a while. */
  readonly isSettling: boolean
}

/** `hasSettled`: nothing has changed for a while. */
export function agree(ports: readonly AgreeingPort[], hasSettled = false): Agreed {
  const actions: AgreementAction[] = []
  for (const port of ports) {
    const action = offloadsOf(port)
    if (action !== undefined) actions.push(action)
    // With other offloads its frames are others: then merging is decided the next time.
    else if (port.merges !== port.wasMerging) {
      actions.push({ do: 'set-merging', port: port.index, isMerging: port.merges })
    }
  }
  let isSettling = false
  for (const { index: port, open, peer, failure } of ports) {
    const { tap } = open
    if (tap === undefined || failure !== undefined) continue
    const wanted = wantedShape(tap.preset, peer?.open)
    const attached = wanted.attached.map(
      (isWanted, queue) => isWanted || (!hasSettled && tap.asked.attached[queue]),
    )
    if (!isSameSet(attached, wanted.attached)) isSettling = true
    const shape = { ...wanted, attached }
    if (!isSame(shape, tap.asked)) actions.push({ do: 'shape', port, shape })
  }
  return { actions, isSettling }
}

function offloadsOf({ index, open, peer, failure }: AgreeingPort): AgreementAction | undefined {
  if (open.offloads === undefined || failure !== undefined) return undefined
  const { possible, asked } = open.offloads
  const offloads = wishOf(peer?.open) & possible
  return offloads === asked ? undefined : { do: 'set-offloads', port: index, offloads }
}

/**
 * What a TAP with this port at the other end of its link is asked for. While nobody is there, the
 * frames go nowhere, and whoever comes will most likely take it all; but for tunnels, which few
 * guests take: with each change the kernel would throw away the tunnelled frames that wait.
 */
function wishOf(peer: AgreeingPeer | undefined): number {
  if (peer === undefined) return OFFLOADS_ALL
  return peer.isConnected === false ? OFFLOADS_PLAIN : peer.txOffloads
}

/** The shape for a TAP with that port at the other end of its link, or none. */
export function wantedShape(
  preset: TapShape,
  peer: Pick<AgreeingPeer, 'isConnected' | 'isPairEnabled' | 'vnetHdrLength'> | undefined,
): TapShape {
  if (peer?.isConnected !== true || peer.isPairEnabled === undefined) return preset
  const enabled = preset.attached.map((_, pair) => peer.isPairEnabled!(pair))
  return {
    vnetHdrLength: preset.vnetHdrLength === 0 ? 0 : peer.vnetHdrLength,
    // A guest that has enabled nothing has only just come.
    attached: enabled.includes(true)
      ? enabled.map((isEnabled, queue) => isEnabled || queue === 0)
      : preset.attached,
  }
}

function isSame(a: TapShape, b: TapShape): boolean {
  return a.vnetHdrLength === b.vnetHdrLength && isSameSet(a.attached, b.attached)
}

function isSameSet(a: readonly boolean[], b: readonly boolean[]): boolean {
  return a.every((isAttached, queue) => isAttached === b[queue])
}
