/** What a switch is made of, as those who carry out its changes have it. */
import type { EngineClient } from '../engine/client.ts'
import type { ControlPortContext, EngineAccess } from '../port/control-port.ts'
import type { Log } from '../text.ts'
import type { Agreement } from './agreement.ts'
import type { CaptureSet } from './capture-set.ts'
import type { LinkWatcher } from './link-watcher.ts'
import type { MirrorSet } from './mirror-set.ts'
import type { PortEntry } from './port-entry.ts'
import type { PortStates } from './port-states.ts'
import type { PortTable } from './port-table.ts'

export interface SwitchParts {
  readonly engine: EngineClient
  readonly ports: PortTable
  readonly states: PortStates
  readonly captures: CaptureSet
  readonly agreement: Agreement
  readonly watcher: LinkWatcher
  readonly mirrors: MirrorSet
  readonly log: Log
  /** For a port that is opened, with the descriptors that it is given. */
  readonly context: (id: string, given?: ReadonlyMap<string, number>) => ControlPortContext
  readonly access: (entry: PortEntry) => EngineAccess
  /** The port is not there any more. */
  readonly forget: (entry: PortEntry) => Promise<void>
}
