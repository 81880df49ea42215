/** What the daemon may do after its start: the config's `privileges`, --user and --privileges. */
import { ConfigError } from '../errors.ts'
import { needsOf } from '../port/kinds.control.ts'
import type { PortOptions } from '../port/options.ts'
import { BOOLEANS } from '../schema/read-option.ts'
import type { RawPrivileges } from './schema.ts'

/** In the environment: who gave --user starts a successor for somebody who is that user anyway. */
export const IMPLIED_USER = 'FRAMEPUMP_IMPLIED_USER'

/** See daemon/privileges.ts. */
export interface PrivilegeSettings {
  /** Name or number. */
  readonly user?: string
  readonly group?: string
  /** Capabilities that are kept; absent: those that ports need. */
  readonly keep?: readonly string[]
  /** `locked`: nothing is kept; `off`: nothing is given up. Absent: on. */
  readonly mode?: PrivilegeMode
  /** Ports that are added later may run scripts and helpers, though none of the config's does. */
  readonly scripts?: boolean
  /** Nobody has asked for any of this: what holds is what does without. */
  readonly isImplied?: true
}

export type PrivilegeMode = NonNullable<RawPrivileges['mode']>

export function toPrivileges(raw: RawPrivileges | null | undefined): PrivilegeSettings | undefined {
  if (raw === null || raw === undefined) return undefined
  const { user, group, scripts, ...others } = raw
  return {
    ...others,
    ...(scripts === undefined ? {} : { scripts: BOOLEANS[String(scripts)] }),
    ...(user === undefined ? {} : { user: String(user) }),
    ...(group === undefined ? {} : { group: String(group) }),
  }
}

/** What the command line adds or overrides; a user of its own brings its own group. */
export function mergePrivileges(
  base: PrivilegeSettings | undefined,
  user: string | undefined,
  mode: PrivilegeMode | undefined,
): PrivilegeSettings | undefined {
  if (user === undefined && mode === undefined) return base
  const { user: oldUser, group: oldGroup, ...others } = base ?? {}
  const whose =
    user === undefined
      ? {
          ...(oldUser === undefined ? {} : { user: oldUser }),
          ...(oldGroup === undefined ? {} : { group: oldGroup }),
        }
      : parseUser(user)
  const isImplied = base === undefined && mode === undefined && process.env[IMPLIED_USER] === '1'
  return {
    ...others,
    ...whose,
    ...(mode === undefined ? {} : { mode }),
    ...(isImplied ? { isImplied } : {}),
  }
}

/** USER[:GROUP] */
function parseUser(text: string): { user: string; group?: string } {
  const [user, group, ...more] = text.split(':')
  if (user === '' || group === '' || more.length > 0) {
    throw new ConfigError('BAD_OPTION', `--user ${text}: give USER or USER:GROUP`)
  }
  return { user, ...(group === undefined ? {} : { group }) }
}

/** What contradicts what, and at which key; undefined: nothing does. */
export function privilegeConflict(
  settings: PrivilegeSettings,
  ports: readonly PortOptions[],
): { readonly key: string; readonly message: string } | undefined {
  const { user, group, keep, mode, scripts } = settings
  if (group !== undefined && user === undefined) {
    return { key: 'group', message: 'needs a user' }
  }
  if (mode !== 'locked') return undefined
  if (keep !== undefined && keep.length > 0) {
    return { key: 'keep', message: 'mode: locked keeps nothing' }
  }
  if (scripts === true) return { key: 'scripts', message: 'mode: locked runs none' }
  const port = ports.find((options) => needsOf(options).programs === 'end')
  if (port === undefined) return undefined
  return { key: 'mode', message: `locked runs no scripts, and port "${port.id}" has a downscript` }
}
