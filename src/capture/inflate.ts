/** The contents of a gzip file in memory of their own. RFC 1952 */
import { promisify } from 'node:util'
import { constants, gunzip } from 'node:zlib'
import { ConfigError } from '../errors.ts'
import { Window } from '../mem/window.ts'

/** A small file can become anything: more than this is not given room. */
export const INFLATED_LENGTH_MAX: number = 512 * 1024 * 1024

const inflate = promisify(gunzip)

/** The caller unmaps the window. A file that is cut off gives what can be had of it. */
export async function inflateFile(
  bytes: Uint8Array,
  path: string,
  lengthMax: number = INFLATED_LENGTH_MAX,
): Promise<{ window: Window; isCut: boolean }> {
  const options = { maxOutputLength: lengthMax }
  let isCut = false
  let data: Buffer
  try {
    data = await inflate(bytes, options).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'Z_BUF_ERROR') throw error
      isCut = true
      return inflate(bytes, { ...options, finishFlush: constants.Z_SYNC_FLUSH })
    })
  } catch (cause) {
    const isTooLong = (cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
    const reason = isTooLong
      ? `it has more than ${lengthMax / 1024 / 1024} MiB in it`
      : (cause as Error).message
    throw new ConfigError('CAPTURE_FORMAT', `${path}: cannot read the gzip file: ${reason}`, {
      hint: isTooLong ? 'unpack it with gunzip' : 'it is damaged',
      cause,
    })
  }
  if (data.length === 0) {
    throw new ConfigError('CAPTURE_FORMAT', `${path}: the gzip file has nothing in it`)
  }
  const window = Window.map(data.length)
  new Uint8Array(window.buffer).set(data)
  return { window, isCut }
}
