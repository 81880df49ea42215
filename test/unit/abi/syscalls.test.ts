/** The numbers of system calls and capabilities against the headers of this machine. */
import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { CAPABILITY_NAMES } from '../../../src/abi/capability.ts'
import { SYSCALLS, SYSCALL_LAST } from '../../../src/abi/syscalls.ts'

/** All macros that a source defines, by name. */
function macros(source: string): Map<string, string> {
  const { stdout, status } = spawnSync('cc', ['-E', '-dM', '-x', 'c', '-'], {
    input: source,
    encoding: 'utf8',
  })
  expect(status).toBe(0)
  return new Map(
    [...stdout.matchAll(/^#define (\w+) (.*)$/gm)].map((match) => [match[1], match[2]]),
  )
}

const WANTED = ['RENAMEAT', 'NEW_STAT', 'SET_GET_RLIMIT', 'SYS_CLONE3', 'MEMFD_SECRET']
/** As the kernel's arch/arm64/include/uapi/asm/unistd.h does it. */
const ARM64 = [
  '#define __BITS_PER_LONG 64',
  ...WANTED.map((name) => `#define __ARCH_WANT_${name}`),
  '#include <asm-generic/unistd.h>',
].join('\n')
const native = process.arch === 'x64' ? '#include <asm/unistd_64.h>' : ARM64
const headers = [
  ['x64', 0, native, process.arch === 'x64'],
  ['arm64', 1, ARM64, true],
] as const

test.each(headers.filter(([, , , isHere]) => isHere))(
  'the numbers of %s are those of its header',
  (_, column, source) => {
    const known = macros(`${source}\n`)
    const last = Math.max(
      ...[...known].flatMap(([name, value]) =>
        name.startsWith('__NR_') && /^\d+$/.test(value) ? [Number(value)] : [],
      ),
    )
    expect(last).toBeGreaterThan(440)
    let checked = 0
    for (const [name, row] of Object.entries(SYSCALLS)) {
      const value = known.get(`__NR_${name}`) ?? known.get(`__NR3264_${name}`)
      const number = row[column]
      // Older headers lack the newest; what no header knows at all is not of that architecture.
      if (value === undefined)
        expect([name, number === null || number > last - 4]).toEqual([name, true])
      else expect([name, number]).toEqual([name, Number(value)])
      if (value !== undefined) checked++
    }
    expect(checked).toBeGreaterThan(75)
    expect(SYSCALL_LAST).toBeGreaterThanOrEqual(last - 1)
  },
)

test('the capabilities have the numbers of the header', () => {
  const known = macros('#include <linux/capability.h>\n')
  CAPABILITY_NAMES.forEach((name, bit) => {
    const macro = `CAP_${name.toUpperCase().replaceAll('-', '_')}`
    expect([macro, known.get(macro)]).toEqual([macro, String(bit)])
  })
})
