/** What can be said of a hand-over from outside: parameters and progress, in QEMU's words where QEMU has them. */
import type { SourceResult } from './source.ts'

/** QEMU's MigrationStatus, as far as it goes here. */
export type MigrationStatus =
  'none' | 'setup' | 'active' | 'device' | 'completed' | 'failed' | 'cancelled'

export interface MigrationParameters {
  /** Descriptors pass; else every port is opened by name. */
  readonly backendTransfer: boolean
  /** Ports that are opened by name all the same. */
  readonly exclude: readonly string[]
  /** How long nobody may read, in milliseconds. */
  readonly downtimeLimitMs: number
}

export const DEFAULT_PARAMETERS: MigrationParameters = {
  backendTransfer: false,
  exclude: [],
  downtimeLimitMs: 300,
}

/** How far it is; of one that is over, how it was. */
export interface MigrationInfo {
  readonly status: MigrationStatus
  readonly error?: string
  readonly totalMs?: number
  /** Of the source, once it is completed. */
  readonly result?: SourceResult & { readonly ports: readonly string[] }
}

/** A hand-over as commands see it. */
export interface MigrationControl {
  parameters: MigrationParameters
  readonly info: MigrationInfo
  /** Begins to hand over to whoever listens at the URI. Throws when nobody does, or nothing can be. */
  migrate(uri: string): Promise<void>
  /** Listens for a source at the URI. */
  takeOver(uri: string): void
  /** Ends what can still be ended. */
  cancel(): void
}
