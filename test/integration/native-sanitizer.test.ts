/** The unit tests of the shim again, on a build with AddressSanitizer and UBSan. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const shimPath = `${root}native-shim/build/Sanitize/framepump.node`

/** The compiler's AddressSanitizer; Node must load it before anything else. */
function libasan(): string | null {
  const { stdout } = spawnSync('cc', ['-print-file-name=libasan.so'], { encoding: 'utf8' })
  const path = stdout?.trim() ?? ''
  return isAbsolute(path) && existsSync(path) ? path : null
}

const library = libasan()
const reason = library === null ? ' (needs cc with libasan)' : ''

describe.skipIf(library === null)(`the shim under sanitizers${reason}`, () => {
  test('passes its unit tests', { timeout: 300_000 }, () => {
    const built = spawnSync('make', ['--no-print-directory', '-C', 'native-shim', 'sanitize'], {
      cwd: root,
      encoding: 'utf8',
    })
    expect(built.stderr).toBe('')
    expect(built.status).toBe(0)
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        'node_modules/vitest/vitest.mjs',
        'run',
        '--config=config/vitest.config.ts',
        '--project=unit',
        '--reporter=json',
        'test/unit/native',
      ],
      {
        cwd: root,
        encoding: 'utf8',
        timeout: 280_000,
        maxBuffer: 64 * 1024 * 1024,
        env: {
          ...process.env,
          FRAMEPUMP_SHIM: shimPath,
          LD_PRELOAD: library!,
          // What leaks at exit is Node's own, which ends without freeing.
          ASAN_OPTIONS: 'detect_leaks=0',
          UBSAN_OPTIONS: 'print_stacktrace=1',
        },
      },
    )
    expect(stderr).not.toMatch(/Sanitizer|runtime error/)
    expect([`${stdout}\n${stderr}`, status]).toEqual([`${stdout}\n${stderr}`, 0])
    const report = JSON.parse(stdout) as { testResults: unknown[]; numPassedTests: number }
    const files = readdirSync(`${root}test/unit/native`).filter((name) => name.endsWith('.test.ts'))
    expect(report.testResults.length).toBe(files.length)
    expect(report.numPassedTests).toBeGreaterThan(0)
  })
})
