/** Memory ports, as the control plane has them. */
import type { ControlKind } from '../open-port.ts'
import type { MemoryOptions } from '../options.ts'
import { MemorySwitchPort } from './control.ts'
import { memorySchema } from './options.ts'

export const memoryKind: ControlKind<MemoryOptions> = {
  schema: memorySchema,
  open: (options, { wake }) => new MemorySwitchPort(options, wake),
  descriptors: () => 0,
}
