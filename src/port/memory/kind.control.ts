/** Memory ports, as the control plane has them. */
import type { ControlKind } from '../control-port.ts'
import type { MemoryOptions } from '../options.ts'
import { MemoryControlPort } from './control.ts'
import { memorySchema } from './options.ts'

export const memoryKind: ControlKind<MemoryOptions> = {
  schema: memorySchema,
  open: (options, { wake }) => new MemoryControlPort(options, wake),
  descriptors: () => 0,
}
