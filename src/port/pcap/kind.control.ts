/** Replayed and recorded files, as the control plane has them. */
import { FDS_PER_FILE } from '../descriptor-budget.ts'
import type { ControlKind } from '../open-port.ts'
import type { PcapOptions } from '../options.ts'
import { RecordSwitchPort } from './record.ts'
import { ReplaySwitchPort } from './replay.ts'
import { checkPcap, pcapSchema } from './options.ts'

export const pcapKind: ControlKind<PcapOptions> = {
  schema: pcapSchema,
  check: checkPcap,
  open: (options, context) =>
    options.replay === undefined
      ? new RecordSwitchPort(options, context)
      : ReplaySwitchPort.open(options, context.log),
  descriptors: () => FDS_PER_FILE,
}
