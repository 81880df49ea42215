/** gzip files: whole, cut off, damaged, in several parts, and bombs. */
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { isGzip } from '../../../src/capture/formats.ts'
import { inflateFile } from '../../../src/capture/inflate.ts'

const DATA = Uint8Array.from({ length: 5000 }, (_, at) => (at * at) & 0xff)

async function inflate(bytes: Uint8Array): Promise<{ data: Uint8Array; isCut: boolean }> {
  const { window, isCut } = await inflateFile(bytes, 'x.gz')
  try {
    return { data: new Uint8Array(window.buffer).slice(), isCut }
  } finally {
    window.unmap()
  }
}

describe('a gzip file', () => {
  test('is told by its first bytes', () => {
    expect(isGzip(gzipSync(DATA))).toBe(true)
    expect(isGzip(DATA)).toBe(false)
    expect(isGzip(Uint8Array.of(0x1f))).toBe(false)
  })

  test('gives what was put in, also of several parts', async () => {
    expect(await inflate(gzipSync(DATA))).toEqual({ data: DATA, isCut: false })
    const parts = Buffer.concat([gzipSync(DATA.subarray(0, 99)), gzipSync(DATA.subarray(99))])
    expect(await inflate(parts)).toEqual({ data: DATA, isCut: false })
  })

  test('that is cut off gives what can be had', async () => {
    const whole = gzipSync(DATA)
    const { data, isCut } = await inflate(whole.subarray(0, whole.length - 9))
    expect(isCut).toBe(true)
    expect(data.length).toBeGreaterThan(0)
    expect(data).toEqual(DATA.subarray(0, data.length))
  })

  test('that is damaged, or empty inside, is an error', async () => {
    const damaged = gzipSync(DATA)
    damaged[20] ^= 0xff
    await expect(inflate(damaged)).rejects.toMatchObject({ code: 'CAPTURE_FORMAT' })
    await expect(inflate(gzipSync(''))).rejects.toMatchObject({
      message: 'x.gz: the gzip file has nothing in it',
    })
  })

  test('that would become too long is refused', async () => {
    const bomb = gzipSync(new Uint8Array(3 * 1024 * 1024))
    await expect(inflateFile(bomb, 'x.gz', 2 * 1024 * 1024)).rejects.toMatchObject({
      code: 'CAPTURE_FORMAT',
      message: 'x.gz: cannot read the gzip file: it has more than 2 MiB in it',
      hint: 'unpack it with gunzip',
    })
  })
})
