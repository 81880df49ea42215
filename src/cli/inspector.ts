/**
 * Closes Node's inspector. `inspector.close()` alone waits until whoever is connected has hung up as
 * well, which a hostile client never does: so its sockets are shut down before. linux: proc_net_tcp.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { shim } from '../native/shim.ts'

const SHUT_RDWR = 2
/** Columns of a row of /proc/net/tcp. */
const LOCAL_ADDRESS = 1
const INODE = 9

export function closeInspector(): void {
  const inspector = process.getBuiltinModule('node:inspector')
  const url = inspector.url()
  if (url === undefined) return
  for (const fd of socketsOn(Number(new URL(url).port))) shim.shutdown(fd, SHUT_RDWR)
  inspector.close()
}

/** Descriptors of this process that are TCP sockets with this port on our side. */
function socketsOn(port: number): number[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const links = new Set<string>()
  for (const file of ['/proc/self/net/tcp', '/proc/self/net/tcp6']) {
    for (const row of lines(file)) {
      const columns = row.trim().split(/\s+/)
      if (columns[LOCAL_ADDRESS]?.endsWith(suffix)) links.add(`socket:[${columns[INODE]}]`)
    }
  }
  return readdirSync('/proc/self/fd')
    .filter((fd) => links.has(linkOf(`/proc/self/fd/${fd}`)))
    .map(Number)
}

function lines(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n')
  } catch {
    // A kernel without IPv6.
    return []
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    // The descriptor of the directory that is read.
    return ''
  }
}
