/** Files of random bytes by HTTP, between guests and namespaces of the machine, and whether they arrived whole. */
import { createHash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from './lab.ts'
import { until } from './processes.ts'
import type { Guest } from './qemu.ts'

/** Bytes of a transfer: many times what fits into rings and socket buffers. */
export const TRANSFER = 8_000_000

/** The guest serves a file of random bytes; returns its MD5. */
export async function serve(guest: Guest): Promise<string> {
  await guest.output(
    `mkdir -p /www && head -c ${TRANSFER} /dev/urandom >/www/data && httpd -h /www -p 80`,
  )
  return digestOf(await guest.output('md5sum </www/data'))
}

const digestOf = (output: string): string => /^[0-9a-f]{32}/.exec(output)?.[0] ?? output

/** MD5 of what a guest receives from there by TCP. */
export async function download(guest: Guest, address: string): Promise<string> {
  return digestOf(await guest.output(`wget -q -O - http://${address}/data | md5sum`))
}

/** A namespace of the machine serves a file of random bytes. */
export async function serveHost(lab: Lab, netns: string, length = TRANSFER): Promise<string> {
  const data = randomBytes(length)
  writeFileSync(join(lab.directory, 'data'), data)
  lab.start(netns, 'busybox', 'httpd', '-f', '-p', '80', '-h', lab.directory)
  await until('the server listens', () =>
    lab.exec(netns, 'ss', '-Hltn', 'sport = :80').includes(':80'),
  )
  return createHash('md5').update(data).digest('hex')
}

export function downloadHost(lab: Lab, netns: string, address: string): string {
  const command = `busybox wget -q -O - http://${address}/data | md5sum`
  return digestOf(lab.exec(netns, 'sh', '-c', command))
}
