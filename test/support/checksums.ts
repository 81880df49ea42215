/** What receivers find wrong with the checksums of frames. */
import { join } from 'node:path'
import { expect } from 'vitest'
import type { Lab } from './lab.ts'
import { sh, until } from './processes.ts'

/**
 * Captures on an interface; the function that is returned ends it and tells the wrong frames. `filter`:
 * of these frames only, as libpcap says it.
 */
export async function watchChecksums(
  lab: Lab,
  netns: string,
  filter = '',
): Promise<() => Promise<string>> {
  const file = join(lab.directory, `${netns}.pcapng`)
  const dumpcap = lab.start(netns, 'dumpcap', '-q', '-i', 'x0', '-f', filter, '-w', file)
  await until('dumpcap captures', () => dumpcap.stderr.includes('File:'))
  return async () => {
    await dumpcap.stop('SIGINT')
    const checks = ['ip', 'tcp', 'udp'].flatMap((name) => ['-o', `${name}.check_checksum:TRUE`])
    const wrong = ['ip', 'tcp', 'udp'].map((name) => `${name}.checksum.status == 0`).join(' || ')
    const count = sh('tshark', '-r', file, '-c', '1')
    expect(count).not.toBe('')
    return sh('tshark', '-r', file, ...checks, '-Y', wrong, '-c', '3')
  }
}

/** Segments and datagrams that a Linux dropped for their checksum, from its /proc/net/snmp. */
export function checksumErrors(snmp: string): Record<string, number> {
  const errors: Record<string, number> = {}
  for (const protocol of ['Tcp', 'Udp']) {
    const [names, values] = snmp
      .split('\n')
      .filter((line) => line.startsWith(`${protocol}: `))
      .map((line) => line.split(' '))
    errors[protocol] = Number(values[names.indexOf('InCsumErrors')])
  }
  return errors
}

export const NO_CHECKSUM_ERRORS = { Tcp: 0, Udp: 0 }
