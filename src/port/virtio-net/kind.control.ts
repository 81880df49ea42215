/** In-process virtio-net devices, as the control plane has them. */
import { FDS_PER_FILE } from '../descriptor-budget.ts'
import type { ControlKind } from '../control-port.ts'
import type { VirtioNetOptions } from '../options.ts'
import { VirtioNetControlPort } from './control.ts'
import { virtioNetSchema } from './options.ts'

export const virtioNetKind: ControlKind<VirtioNetOptions> = {
  schema: virtioNetSchema,
  open: (options, context) => new VirtioNetControlPort(options, context),
  descriptors: ({ queues = 1 }) => FDS_PER_FILE + queues,
}
