/** TAPs, as the control plane has them. */
import { OFFLOADS_PLAIN } from '../../wire/vnet-hdr.ts'
import type { ControlKind, PortNeeds } from '../control-port.ts'
import type { TapOptions } from '../options.ts'
import type { PostponedForm } from '../postponed.control.ts'
import { openTapPort, takeOverTapPort } from './control.ts'
import { postponedInfo, whyNotPostponed } from './postpone.ts'
import { isScript } from './scripts.ts'
import { checkTap, tapSchema } from './options.ts'

export const tapKind: ControlKind<TapOptions> = {
  schema: tapSchema,
  check: checkTap,
  open: openTapPort,
  takeOver: takeOverTapPort,
  // And a socket by which its interface is watched; those of a namespace share one.
  descriptors: ({ fds, queues = 1 }) => 1 + (fds?.split(':').length ?? queues),
  postpone,
  given: ({ fd, fds }) => [fd ?? [], fds?.split(':') ?? []].flat(),
  needs,
}

function postpone(options: TapOptions): PostponedForm | string {
  const reason = whyNotPostponed(options, true)
  if (reason !== undefined) return reason
  const { ifname, netns, queues = 1, vnet_hdr = true } = options
  const facts = { ifname: ifname!, ...(netns === undefined ? {} : { netns }) }
  const txOffloads = vnet_hdr ? OFFLOADS_PLAIN : 0
  return { info: postponedInfo(options), queues, txOffloads, facts }
}

function needs({ netns, script, downscript, helper }: TapOptions): PortNeeds {
  const atOpening = isScript(script) || helper !== undefined
  const programs = isScript(downscript) ? 'end' : atOpening ? 'opening' : undefined
  return {
    netns: netns !== undefined,
    ...(programs === undefined ? {} : { programs }),
    ...(helper === undefined ? {} : { helper }),
  }
}
