/** Replayed and recorded files, as the control plane has them. */
import { FDS_PER_FILE } from '../descriptor-budget.ts'
import type { ControlKind } from '../control-port.ts'
import type { PcapOptions } from '../options.ts'
import { readRecord } from './hand-over.ts'
import { RecordControlPort } from './record.ts'
import { ReplayControlPort } from './replay.ts'
import { checkPcap, pcapSchema } from './options.ts'

export const pcapKind: ControlKind<PcapOptions> = {
  schema: pcapSchema,
  check: checkPcap,
  open: (options, context) =>
    options.replay === undefined
      ? new RecordControlPort(options, context)
      : ReplayControlPort.open(options, context.log),
  takeOver: (options, handed, context) =>
    options.replay === undefined
      ? new RecordControlPort(options, context, readRecord(options, handed))
      : ReplayControlPort.takeOver(options, handed),
  descriptors: () => FDS_PER_FILE,
}
