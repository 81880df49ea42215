/** Options of a memory port. */
import type { CommonOptions, PortSchema } from '../port-schema.ts'
import { ID, MTU } from '../port-schema.ts'

export interface MemoryOptions extends CommonOptions {
  readonly type: 'memory'
}

export const memorySchema: PortSchema = {
  description: "A port whose frames are the program's own.",
  options: { id: ID, mtu: MTU },
  isApiOnly: true,
}
