/** Memory ports, as the control plane has them. */
import type { ControlKind } from '../open-port.ts'
import type { MemoryOptions } from '../options.ts'
import { MemorySwitchPort } from './control.ts'

export const memoryKind: ControlKind<MemoryOptions> = {
  rules: null,
  open: (options, { wake }) => new MemorySwitchPort(options, wake),
  descriptors: () => 0,
  inPlace: ['mtu'],
}
