/** Users and groups by name or number, from /etc/passwd and /etc/group. */
import { readFileSync } from 'node:fs'
import { SysError } from '../errors.ts'

export interface Identity {
  readonly uid: number
  readonly gid: number
  /** The user's name; absent: the number has none, so there are no further groups either. */
  readonly name?: string
}

/** What `USER` and `GROUP` mean; without a group the user's own. Throws SysError. */
export function findIdentity(user: string, group: string | undefined): Identity {
  const isNumber = /^\d+$/.test(user)
  const entry = entries('/etc/passwd').find((fields) => fields[isNumber ? 2 : 0] === user)
  if (entry === undefined && !isNumber) {
    throw unknown(`there is no user "${user}"`, 'give a name of /etc/passwd, or UID:GID')
  }
  const gid = group === undefined ? entry?.[3] : groupId(group)
  if (gid === undefined) {
    throw unknown(`user ${user} has no name, so its group is not known`, `give ${user}:GROUP`)
  }
  const uid = Number(entry?.[2] ?? user)
  return { uid, gid: Number(gid), ...(entry === undefined ? {} : { name: entry[0] }) }
}

/** The name of a number; the number itself when it has none. */
export function userName(uid: number): string {
  return nameOf(uid, '/etc/passwd')
}

export function groupName(gid: number): string {
  return nameOf(gid, '/etc/group')
}

function groupId(group: string): string {
  if (/^\d+$/.test(group)) return group
  const entry = entries('/etc/group').find((fields) => fields[0] === group)
  if (entry === undefined) throw unknown(`there is no group "${group}"`, 'see /etc/group')
  return entry[2]
}

function nameOf(id: number, file: string): string {
  return entries(file).find((fields) => fields[2] === String(id))?.[0] ?? String(id)
}

/** Lines of both files: name, password, id, ... */
function entries(file: string): string[][] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    // A container may have none.
    return []
  }
  return text
    .split('\n')
    .map((line) => line.split(':'))
    .filter((fields) => fields.length > 2)
}

const unknown = (message: string, hint: string): SysError =>
  new SysError('PRIVILEGES', message, { hint })
