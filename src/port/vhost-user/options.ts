/** Options of a vhost-user port: what each may be, and what one says about another. */
import { counted } from '../../text.ts'
import type { VhostUserOptions } from '../options.ts'
import { fail, GRO, ID, MTU } from '../option-rules.ts'
import type { At, OptionRules } from '../option-rules.ts'

/** sizeof sun_path, less its end. */
const SOCKET_PATH_MAX = 107

export const vhostUserRules: OptionRules = {
  id: ID,
  path: { kind: 'string' },
  server: { kind: 'boolean' },
  queues: { kind: 'integer', range: [1, 128] },
  mtu: MTU,
  gro: GRO,
}

export function checkVhostUser(options: VhostUserOptions, at: At): void {
  const { path } = options
  if (path === undefined || path === '') {
    return fail(at('path'), `Parameter 'path' is missing`)
  }
  const bytes = Buffer.byteLength(path)
  if (bytes > SOCKET_PATH_MAX) {
    fail(
      at('path'),
      `the path is ${counted(bytes, 'byte')} long, a socket's has at most ${SOCKET_PATH_MAX}`,
    )
  }
}
