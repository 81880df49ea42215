/** What processes leave behind: descriptors, sockets, interfaces, files, other processes. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { sh } from './processes.ts'

/** By which its threads wait: which of them depends on the I/O tier, which each process chooses. */
const WAITS = ['anon_inode:[eventpoll]', 'anon_inode:[io_uring]']

/** Descriptors of a process by what they are, with their numbers in the kernel left out. */
export function descriptorsOf(pid: number): Record<string, number> {
  const kinds: Record<string, number> = {}
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const link = readlinkSync(`/proc/${pid}/fd/${fd}`)
      const kind = WAITS.includes(link) ? 'wait' : link.replaceAll(/\d+/g, '#')
      kinds[kind] = (kinds[kind] ?? 0) + 1
    } catch {
      // Closed meanwhile.
    }
  }
  return kinds
}

/** UNIX sockets with a name below a directory, and how many of each. */
export function unixSocketsIn(directory: string): Record<string, number> {
  const names: Record<string, number> = {}
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const name = line.split(' ').at(-1)!
    if (name.startsWith(directory)) names[name] = (names[name] ?? 0) + 1
  }
  return names
}

export function interfacesOf(namespaces: readonly string[]): string[] {
  return namespaces.flatMap((netns) => {
    const links = JSON.parse(sh('ip', '-n', netns, '-j', 'link')) as { ifname: string }[]
    return links.map(({ ifname }) => `${netns} ${ifname}`)
  })
}

/** Processes whose command line has all of these words. */
export function processesWith(...words: readonly string[]): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      if (!(pid > 0)) return false
      try {
        const given = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
        return words.every((word) => given.includes(word))
      } catch {
        // Ended meanwhile.
        return false
      }
    })
}
