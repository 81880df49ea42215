/** vhost-user ports, as the control plane has them. */
import { isAnswered } from '../../sockets/listen.ts'
import { frontEndFds } from '../descriptor-budget.ts'
import type { ControlKind } from '../control-port.ts'
import type { VhostUserOptions } from '../options.ts'
import type { PostponedForm } from '../postponed.control.ts'
import { VhostUserControlPort } from './control.ts'
import { takeOverVhostUser } from './hand-over.ts'
import { vhostUserSchema } from './options.ts'

export const vhostUserKind: ControlKind<VhostUserOptions> = {
  schema: vhostUserSchema,
  open: (options, context, share) => new VhostUserControlPort(options, context, share),
  takeOver: (options, handed, context, share) =>
    takeOverVhostUser(
      options,
      handed,
      context,
      share,
      (came) => new VhostUserControlPort(options, context, share, came),
    ),
  descriptors: ({ queues = 1 }) => 1 + frontEndFds(queues),
  postpone,
}

function postpone({ path, server = true, queues = 1 }: VhostUserOptions): PostponedForm | string {
  // A front-end that listens has one connection, which the predecessor has.
  if (server && !isAnswered(path)) return `nobody listens on ${path}`
  const info = server ? `another process listens on ${path}` : `connects to ${path} later`
  return { info, queues, txOffloads: 0, facts: { path } }
}
