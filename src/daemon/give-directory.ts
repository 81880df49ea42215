/** Directories that a daemon of root's has made, for the user as whom it runs from now on. */
import { lchownSync, lstatSync, readdirSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { join } from 'node:path'
import { SysError } from '../errors.ts'
import type { Log } from '../text.ts'
import { systemReason } from '../text.ts'
import type { Identity } from './users.ts'

const OTHERS_MASK = 0o077

/** Whether an entry of a directory is a daemon's. */
export type IsOurs = (name: string, entry: Stats) => boolean

export const isSocket: IsOurs = (_, entry) => entry.isSocket()
export const isState: IsOurs = (name, entry) =>
  entry.isFile() && /^vhost-user-.*\.json(\.new)?$/.test(name)

/**
 * A directory of root's that nobody else may enter becomes the user's, with what is in it: only when
 * nothing but ours is, so that a control socket in somebody's home gives nothing away. Else it stays as it is.
 */
export function giveDirectory(
  directory: string,
  identity: Identity,
  isOurs: IsOurs,
  log: Log,
): void {
  try {
    const found = lstatSync(directory)
    // What others may enter is not ours alone; nor is it in the user's way.
    if (!found.isDirectory() || found.uid !== 0 || (found.mode & OTHERS_MASK) !== 0) return
    const entries = readdirSync(directory).map((name) => ({ name, path: join(directory, name) }))
    const other = entries.find(({ name, path }) => {
      const entry = lstatSync(path)
      return entry.uid !== 0 || !isOurs(name, entry)
    })
    if (other !== undefined) {
      log(`privileges: ${directory} stays root's because="it has ${other.name}"`, 'warning')
      return
    }
    for (const { path } of entries) lchownSync(path, identity.uid, identity.gid)
    lchownSync(directory, identity.uid, identity.gid)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return
    const text = `${directory} cannot be given to the user: ${systemReason(cause)}`
    throw new SysError('PRIVILEGES', text, { path: directory, cause })
  }
}
