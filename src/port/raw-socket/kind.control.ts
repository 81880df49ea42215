/** Raw sockets, as the control plane has them. */
import { OFFLOADS_PLAIN } from '../../wire/vnet-hdr.ts'
import type { ControlKind } from '../control-port.ts'
import type { RawSocketOptions } from '../options.ts'
import type { PostponedForm } from '../postponed.control.ts'
import { RawSocketControlPort } from './control.ts'
import { checkRawSocket, rawSocketSchema } from './options.ts'

export const rawSocketKind: ControlKind<RawSocketOptions> = {
  schema: rawSocketSchema,
  check: checkRawSocket,
  open: (options, context) => RawSocketControlPort.open(options, context),
  takeOver: (options, handed, context) => RawSocketControlPort.takeOver(options, handed, context),
  // And the namespace, and a socket by which its interface is watched.
  descriptors: ({ queues = 1 }) => 2 + queues,
  postpone,
  given: ({ fd }) => [fd ?? []].flat(),
  needs: ({ netns, fd }) => ({ netns: netns !== undefined, packets: fd === undefined }),
}

/** Its owner reads the interface as well: every frame would be there twice. */
function postpone({
  ifname,
  netns,
  fd,
  queues = 1,
  vnet_hdr = true,
}: RawSocketOptions): PostponedForm | string {
  if (fd !== undefined) return 'fd= is given: a given descriptor is used'
  const facts = { ifname: ifname!, ...(netns === undefined ? {} : { netns }) }
  return { info: `ifname=${ifname}`, queues, txOffloads: vnet_hdr ? OFFLOADS_PLAIN : 0, facts }
}
