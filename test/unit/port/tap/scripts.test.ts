/** Up and down scripts and the bridge helper: real programs, real sockets. */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { EMFILE } from '../../../../src/abi/errno.ts'
import { shim } from '../../../../src/native/shim.ts'
import { shimPath } from '../../native/windows.ts'
import { isScript, runHelper, runScript } from '../../../../src/port/tap/scripts.ts'

let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-scripts-'))
})

afterEach(() => rmSync(directory, { recursive: true }))

function program(name: string, body: string, mode = 0o755): string {
  const path = join(directory, name)
  writeFileSync(path, `${body}\n`)
  chmodSync(path, mode)
  return path
}

const log = (): string => join(directory, 'log')
const logged = (): string => readFileSync(log(), 'utf8')

/** A helper that writes its arguments to the log and sends its standard output over its socket. */
function helper(): string {
  return program(
    'helper.cjs',
    `#!${process.execPath}
require('node:fs').writeFileSync(${JSON.stringify(log())}, process.argv.slice(2).join(' '))
const shim = require(${JSON.stringify(shimPath)})
shim.sendMsg(3, new Uint8Array(1), 0, 1, Int32Array.of(1), 1, 0)`,
  )
}

describe('isScript', () => {
  test.each([
    [undefined, false],
    ['', false],
    ['no', false],
    ['/etc/qemu-ifup', true],
    ['No', true],
    ['no ', true],
  ])('%s: %s', (path, expected) => {
    expect(isScript(path)).toBe(expected)
  })
})

describe('runScript', () => {
  test('gives the interface’s name as the one argument', async () => {
    await runScript(program('up', `#!/bin/sh\necho "$# $1" >${log()}`), 'x0')
    expect(logged()).toBe('1 x0\n')
  })

  test('a status that is not 0 is an error with it', async () => {
    const path = program('up', '#!/bin/sh\nexit 42')
    await expect(runScript(path, 'x0')).rejects.toMatchObject({
      code: 'TAP_SCRIPT',
      message: `network script ${path} failed with status 42`,
      ifname: 'x0',
      path,
    })
  })

  test('so is the end by a signal', async () => {
    const path = program('up', '#!/bin/sh\nkill -9 $$')
    await expect(runScript(path, 'x0')).rejects.toMatchObject({
      message: `network script ${path} failed with status 128`,
    })
  })

  test.each([
    ['that is not there', undefined, 'No such file or directory'],
    ['that may not be executed', 0o644, 'Permission denied'],
  ])('one %s is an error with the reason', async (_, mode, text) => {
    const path =
      mode === undefined ? join(directory, 'none') : program('up', '#!/bin/sh\nexit 0', mode)
    await expect(runScript(path, 'x0')).rejects.toMatchObject({
      code: 'TAP_SCRIPT',
      message: `could not launch network script ${path}: ${text}`,
      syscall: 'execve',
    })
  })
})

describe('a program that does not end', () => {
  const forEver = (name: string): string =>
    program(name, `#!/bin/sh\nsleep 1000 &\necho $! >${log()}\nwait`)

  async function expectKilled(running: Promise<unknown>, error: object): Promise<void> {
    await expect(running).rejects.toMatchObject(error)
    const pid = Number(logged())
    // Killed, and taken away by whoever is its parent now.
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), 10_000)
  }

  test('is killed with all that it has started, a script', async () => {
    const path = forEver('up')
    await expectKilled(runScript(path, 'x0', 1000), {
      code: 'TAP_SCRIPT',
      message: `network script ${path} did not end within 1 s and was killed`,
    })
  })

  test('is killed with all that it has started, a helper', async () => {
    await expectKilled(runHelper(shim, forEver('helper'), 'br0', 1000), {
      code: 'TAP_HELPER',
      message: 'bridge helper did not end within 1 s and was killed',
    })
  })
})

describe('runHelper', () => {
  const descriptors = (): number => readdirSync('/proc/self/fd').length

  test('is called with its own socket and the bridge, and its descriptor comes back', async () => {
    const fd = await runHelper(shim, helper(), 'br7')
    expect(fd).toBeGreaterThan(2)
    expect(shim.getStatusFlags(fd)).toBeGreaterThanOrEqual(0)
    expect(shim.close(fd)).toBe(0)
    expect(logged()).toBe('--use-vnet --fd=3 --br=br7')
  })

  test('a command line goes through sh; --br= is added only when it has none', async () => {
    const path = helper()
    shim.close(await runHelper(shim, `${path} --own`, 'br7'))
    expect(logged()).toBe('--own --use-vnet --fd=3 --br=br7')
    shim.close(await runHelper(shim, `${path}\t--br=own`, 'br7'))
    expect(logged()).toBe('--br=own --use-vnet --fd=3')
  })

  test.each([
    ['that is not there', () => join(directory, 'none'), "Can't fork bridge helper"],
    ['that fails', () => program('helper', '#!/bin/sh\nexit 1'), 'bridge helper failed'],
    [
      'that sends nothing',
      () => program('helper', '#!/bin/sh\nexit 0'),
      'failed to recv file descriptor',
    ],
    [
      'that sends bytes without a descriptor',
      () => program('helper', '#!/bin/sh\nprintf x >&3'),
      'failed to recv file descriptor',
    ],
    [
      'that sends a descriptor and then fails',
      () => `${helper()}; exit 1 #`,
      'bridge helper failed',
    ],
  ])('one %s is an error, and nothing stays open', async (_, path, message) => {
    const command = path()
    // The first child makes the process open what it keeps for all children.
    await runScript('/bin/true', 'x0')
    const before = descriptors()
    await expect(runHelper(shim, command, 'br0')).rejects.toMatchObject({
      code: 'TAP_HELPER',
      message,
    })
    expect(descriptors()).toBe(before)
  })

  test('without a socket pair it is not started', async () => {
    const none = { ...shim, socketPair: () => -EMFILE }
    await expect(runHelper(none, helper(), 'br0')).rejects.toMatchObject({
      code: 'TAP_HELPER',
      message: 'socketpair() failed',
    })
    expect(readdirSync(directory)).toEqual(['helper.cjs'])
  })
})
