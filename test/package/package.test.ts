/** The package as somebody has it who installs it: from its tarball, and from git. */
import { existsSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { chmodSync, chownSync, cpSync, mkdirSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ROOT } from '../support/lab.ts'
import { must, run, Workplace } from './project.ts'

/** What is used of @arethetypeswrong/core. */
interface AreTheTypesWrong {
  createPackageFromTarballData(tarball: Uint8Array): unknown
  checkPackage(of: unknown): Promise<{
    readonly types: unknown
    readonly problems: readonly { readonly kind: string; readonly resolutionKind?: string }[]
  }>
}

const place = new Workplace()
afterAll(() => place.remove())

let tarball: string
/** The package from its tarball. */
let project: string
const VERSION = (
  JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
).version

beforeAll(() => {
  const checkout = place.checkout('checkout')
  symlinkSync(join(ROOT, 'node_modules'), join(checkout, 'node_modules'))
  must('npm', ['pack', '--pack-destination', place.directory], { cwd: checkout })
  tarball = join(place.directory, `framepump-${VERSION}.tgz`)
  project = place.project('project', tarball, place.bare)
})

const inPackage = (directory: string, ...path: string[]): string =>
  join(directory, 'node_modules/framepump', ...path)

/** A project of its own with the package's sources, but no file that was built before. */
function withoutPrebuilds(name: string): string {
  const directory = place.make(name)
  cpSync(project, directory, { recursive: true, verbatimSymlinks: true })
  rmSync(inPackage(directory, 'native-shim/prebuilds'), { recursive: true })
  return directory
}

/** What npx runs, without npx, which takes a second. */
const framepump = (directory: string, ...args: string[]): [string, string[], { cwd: string }] => [
  join(directory, 'node_modules/.bin/framepump'),
  args,
  { cwd: directory },
]

function shimOf(json: string): { isGood: boolean; detail: string; fix: string } {
  const findings = JSON.parse(json) as {
    subject: string
    isGood: boolean
    detail: string
    fix: string
  }[]
  return findings.find(({ subject }) => subject === 'native shim')!
}

describe('the tarball', () => {
  test('holds what is used and nothing else', () => {
    const names = must('tar', ['-tzf', tarball]).trim().split('\n').sort()
    const compiled = names.filter((name) => name.startsWith('package/dist/'))
    expect(compiled.filter((name) => !/\.(js|d\.ts)$/.test(name))).toEqual([])
    expect(compiled).toContain('package/dist/cli/main.js')
    const sources = readdirSync(join(ROOT, 'native-shim/src')).map(
      (name) => `native-shim/src/${name}`,
    )
    const prebuilds = ['x64', 'arm64'].flatMap((arch) =>
      ['glibc', 'musl'].map((libc) => `native-shim/prebuilds/linux-${arch}/framepump.${libc}.node`),
    )
    const rooms = ['cli', 'control', 'daemon', 'handover', 'port', 'stats', 'switch']
    const references = ['bench', 'config', 'native-shim', 'src', 'test/fuzz']
      .concat(rooms.map((room) => `src/${room}`))
      .map((directory) => `${directory}/README.md`)
    const wanted = [
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      'LICENSE',
      'README.md',
      'SECURITY.md',
      'package.json',
      'src/errors.md',
      'config/container/Dockerfile',
      'config/container/Dockerfile.dockerignore',
      'config/container/compose.yaml',
      'config/container/framepump.yaml',
      'config/containerlab/framepump.yaml',
      'config/containerlab/lab.clab.yml',
      'config/framepump.1',
      'config/framepump.schema.json',
      'config/libvirt/guest.xml',
      'config/systemd/framepump.service',
      'config/systemd/framepump@.service',
      'config/examples/erspan.yaml',
      'config/examples/private-vlan.yaml',
      'config/examples/qinq.yaml',
      'config/examples/recorded-link.yaml',
      'config/examples/rspan.yaml',
      'config/examples/span.yaml',
      'config/examples/tenant.yaml',
      'config/examples/two-vms.yaml',
      'config/examples/uplink.yaml',
      'config/examples/vlans.yaml',
      'native-shim/flags',
      ...references,
      ...sources,
      ...prebuilds,
    ]
    expect(names.filter((name) => !compiled.includes(name))).toEqual(
      wanted.map((name) => `package/${name}`).sort(),
    )
    expect(run('grep', ['-rl', 'sourceMappingURL', inPackage(project, 'dist')]).stdout).toBe('')
  })

  test('has no script that npm runs at an install', () => {
    const { scripts } = JSON.parse(readFileSync(inPackage(project, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>
    }
    const atInstall = ['preinstall', 'install', 'postinstall']
    expect(Object.keys(scripts).filter((name) => atInstall.includes(name))).toEqual([])
    expect(existsSync(inPackage(project, 'binding.gyp'))).toBe(false)
  })

  test('is not made of a shim that needs a newer C library', () => {
    const checkout = join(place.directory, 'checkout')
    const source = join(checkout, 'native-shim/src/process.c')
    const text = readFileSync(source, 'utf8')
    writeFileSync(
      source,
      `#include <sys/stat.h>\n${text.replace('_exit(status)', '_exit(fstat(status, &(struct stat){ 0 }))')}`,
    )
    const { status, stderr } = run('npm', ['run', 'build:prebuilds'], { cwd: checkout })
    writeFileSync(source, text)
    expect(status).toBe(1)
    expect(stderr).toContain('linux-x64/glibc: needs glibc 2.33: fstat@GLIBC_2.33')
  })

  test('publint has nothing to say', () => {
    const said = must(join(ROOT, 'node_modules/.bin/publint'), ['run', tarball, '--strict'])
    expect(said).toContain('All good!')
  })

  test('its types are right for every resolution but that of CommonJS', async () => {
    // By a name that the type check does not follow, so that it needs no npm ci of its own.
    const name: string = '@arethetypeswrong/core'
    const attw = (await import(name)) as AreTheTypesWrong
    const result = await attw.checkPackage(attw.createPackageFromTarballData(readFileSync(tarball)))
    expect(result.types).toMatchObject({ kind: 'included' })
    const kinds = result.problems.map((problem) =>
      problem.kind === 'NoResolution' ? `${problem.kind} ${problem.resolutionKind}` : problem.kind,
    )
    // node10 knows no `exports`; a require() gets the module of Node 20.19 and newer.
    expect(
      kinds.filter((kind) => !['NoResolution node10', 'CJSResolvesToESM'].includes(kind)),
    ).toEqual([])
  })
})

describe('installed, without a compiler', () => {
  const bare = { path: place.bare }

  test('framepump --version, doctor and demo work', () => {
    const npx = (...args: string[]): string =>
      must('npx', ['--no-install', 'framepump', ...args], { cwd: project, path: place.bare })
    expect(npx('--version').trim()).toBe(VERSION)
    expect(shimOf(npx('doctor', '--json')).detail).toBe(
      inPackage(project, `native-shim/prebuilds/linux-${process.arch}/framepump.glibc.node`),
    )
    npx('demo', '--seconds', '1')
    expect(statSync(join(project, 'framepump-demo.pcapng')).size).toBeGreaterThan(1000)
  })

  test('the library’s example in the README runs, from TypeScript and JavaScript', () => {
    const example = /## Library\n\n```js\n(.*?)```/s.exec(
      readFileSync(join(ROOT, 'README.md'), 'utf8'),
    )![1]
    mkdirSync(join(project, 'node_modules/@types'), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(project, 'node_modules/@types/node'))
    writeFileSync(join(project, 'example.ts'), example)
    const forms: string[] = []
    for (const [module, moduleResolution] of [
      ['nodenext', 'nodenext'],
      ['esnext', 'bundler'],
    ]) {
      const compilerOptions = {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: false,
        target: 'es2022',
        lib: ['es2023', 'es2024.sharedmemory', 'esnext.disposable'],
        types: ['node'],
        module,
        moduleResolution,
        outDir: moduleResolution,
      }
      const config = join(project, `tsconfig.${moduleResolution}.json`)
      writeFileSync(config, JSON.stringify({ compilerOptions, files: ['example.ts'] }))
      must(join(ROOT, 'node_modules/.bin/tsc'), ['-p', config], { cwd: project })
      forms.push(join(project, moduleResolution, 'example.js'))
    }
    writeFileSync(join(project, 'plain.js'), example)
    forms.push(join(project, 'plain.js'))

    for (const form of forms) {
      const said = must('node', [form], { cwd: project, ...bare })
      expect({ form, said }).toEqual({ form, said: expect.stringContaining('b has a frame') })
    }
  })
})

describe('where no file that came with it loads', () => {
  const hint = 'apt-get install gcc libc6-dev'

  test('without a compiler --version, --help and doctor work, all else is a line and 77', () => {
    const directory = withoutPrebuilds('no-compiler')
    const bare = { cwd: directory, path: place.bare }
    const cli = (...args: string[]) => run(framepump(directory)[0], args, bare)
    expect(cli('--version')).toEqual({ status: 0, stdout: `${VERSION}\n`, stderr: '' })
    for (const args of [['--help'], ['run', '--help'], ['help', 'demo']]) {
      const help = cli(...args)
      expect({ args, ...help }).toMatchObject({ args, status: 0, stderr: '' })
      expect(help.stdout).toContain('Usage: framepump')
    }
    const doctor = cli('doctor', '--json')
    expect(doctor).toMatchObject({ status: 1, stderr: '' })
    expect(shimOf(doctor.stdout)).toMatchObject({ isGood: false, fix: hint })
    const others = [
      'run',
      'run --check',
      'demo',
      'ctl query-ports',
      'show ports',
      'capture -w -',
      'bench',
    ]
    for (const command of others) {
      const { status, stdout, stderr } = cli(...command.split(' '))
      expect({ command, status, stdout }).toEqual({ command, status: 77, stdout: '' })
      expect(stderr).toMatch(/^framepump: native shim not loaded: [^\n]*\n$/)
      expect(stderr).toContain(`(${hint})`)
    }
    // The library says it when a switch is made, where it can be caught.
    const program = `
      import { createSwitch } from 'framepump'
      try { createSwitch() } catch (error) { console.log(error.code, error.hint) }`
    const caught = run('node', ['--input-type=module', '-e', program], bare)
    expect(caught).toEqual({ status: 0, stdout: `SHIM_NOT_LOADED ${hint}\n`, stderr: '' })
  })

  test('with one it is built once, in the package', () => {
    const directory = withoutPrebuilds('compiler')
    must(...framepump(directory, 'doctor'))
    const built = inPackage(directory, 'native-shim/build/Release/framepump.node')
    expect(readdirSync(inPackage(directory, 'native-shim/build/Release'))).toEqual([
      'framepump.node',
    ])
    const long = new Date('2001-01-01')
    utimesSync(built, long, long)
    expect(shimOf(must(...framepump(directory, 'doctor', '--json'))).detail).toBe(built)
    expect(statSync(built).mtime).toEqual(long)
  })

  test('a compiler that fails is told of in a line', () => {
    const directory = withoutPrebuilds('failing')
    rmSync(inPackage(directory, 'native-shim/build'), { recursive: true, force: true })
    writeFileSync(inPackage(directory, 'native-shim/src/broken.c'), '#include "absent.h"\n')
    const { status, stderr } = run(...framepump(directory, 'show', 'ports'))
    expect(status).toBe(77)
    expect(stderr).toMatch(/^framepump: native shim not loaded: .*absent\.h: No such file.*\n$/)
    expect(stderr).toContain(hint)
  })

  describe('in a package of root’s, for another user', () => {
    const NOBODY = 65534
    let directory: string
    let home: string
    const doctor = (env: NodeJS.ProcessEnv) => {
      const cli = inPackage(directory, 'dist/cli/main.js')
      const user = ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups']
      const command = [process.execPath, cli, 'doctor', '--json']
      const options = { env: { HOME: home, ...env }, cwd: '/' }
      // It fails when the shim is missing.
      return shimOf(run('setpriv', [...user, ...command], options).stdout)
    }
    beforeAll(() => {
      directory = withoutPrebuilds('of-root')
      home = place.make('home')
      chownSync(home, NOBODY, NOBODY)
      chmodSync(home, 0o755)
    })

    test('it is built once, in a cache that is the user’s alone', () => {
      const cache = join(home, '.cache/framepump')
      const { isGood, detail } = doctor({})
      expect({ isGood, detail }).toMatchObject({ isGood: true })
      expect(detail).toMatch(new RegExp(`^${cache}/framepump-[0-9a-f]{32}\\.node$`))
      expect(statSync(cache).mode & 0o777).toBe(0o700)
      expect(readdirSync(cache).length).toBe(1)
      const { mtimeMs } = statSync(detail)
      expect(doctor({ PATH: place.bare }).detail).toBe(detail)
      expect(statSync(detail).mtimeMs).toBe(mtimeMs)
      // Other sources are another file.
      const source = inPackage(directory, 'native-shim/src/process.c')
      writeFileSync(source, `${readFileSync(source, 'utf8')}/* newer */\n`)
      expect(doctor({ PATH: place.bare }).isGood).toBe(false)
      expect(doctor({}).isGood).toBe(true)
      expect(readdirSync(cache).length).toBe(2)
    })

    test('a file that does not load is built again', () => {
      const cache = join(home, '.cache/framepump')
      for (const name of readdirSync(cache)) writeFileSync(join(cache, name), '')
      expect(doctor({}).isGood).toBe(false)
      expect(doctor({}).isGood).toBe(true)
    })

    test('a cache that somebody else can write is refused, and nothing in it loaded', () => {
      const good = doctor({}).detail
      const refused = (cache: string): string => {
        const { isGood, detail } = doctor({ XDG_CACHE_HOME: cache })
        expect(isGood).toBe(false)
        return detail
      }
      const planted = (name: string, owner: number, mode: number): string => {
        const base = place.make(name)
        const cache = join(base, 'framepump')
        mkdirSync(cache)
        cpSync(good, join(cache, good.slice(good.lastIndexOf('/') + 1)))
        chownSync(cache, owner, owner)
        chownSync(base, NOBODY, NOBODY)
        chmodSync(cache, mode)
        return base
      }
      expect(refused(planted('open-cache', NOBODY, 0o777))).toContain('can be written by others')
      expect(refused(planted('group-cache', NOBODY, 0o770))).toContain('can be written by others')
      expect(refused(planted('foreign-cache', 12345, 0o755))).toContain('belongs to somebody else')
      const above = planted('open-above', NOBODY, 0o700)
      chmodSync(above, 0o777)
      expect(refused(above)).toContain(`${above} can be written by others`)
      const linked = place.make('linked-cache')
      symlinkSync(join(place.directory, 'open-cache/framepump'), join(linked, 'framepump'))
      expect(refused(linked)).toContain('can be written by others')
    })
  })

  test('root builds in no package of somebody else’s, and not where the environment says', () => {
    const directory = withoutPrebuilds('of-nobody')
    chownSync(inPackage(directory, 'native-shim'), 65534, 65534)
    const cache = place.make('of-somebody')
    const script = `mount -t tmpfs none /var/cache && XDG_CACHE_HOME=${cache} HOME=${cache} \
      node ${inPackage(directory, 'dist/cli/main.js')} doctor --json && stat -c %a /var/cache/framepump >&2`
    const { stdout, stderr, status } = run('unshare', ['--mount', 'sh', '-c', script])
    expect({ status, mode: stderr.trim() }).toEqual({ status: 0, mode: '755' })
    expect(shimOf(stdout).detail).toMatch(/^\/var\/cache\/framepump\/framepump-[0-9a-f]{32}\.node$/)
    expect(existsSync(inPackage(directory, 'native-shim/build'))).toBe(false)
    expect(readdirSync(cache)).toEqual([])
  })
})

describe('from git', () => {
  test('it is built at the install, and works without a compiler later', () => {
    const repository = place.checkout('repository')
    const directory = place.project('from-git', `git+file://${repository}`)
    const doctor = framepump(directory, 'doctor', '--json')
    expect(shimOf(must(doctor[0], doctor[1], { ...doctor[2], path: place.bare })).detail).toBe(
      inPackage(directory, `native-shim/prebuilds/linux-${process.arch}/framepump.glibc.node`),
    )
  })

  test('a checkout without make and a compiler says at npm ci what to install, and cannot be packed', () => {
    const checkout = place.checkout('bare-checkout')
    const bare = { cwd: checkout, path: place.bare }
    const said = must('npm', ['ci', '--prefer-offline', '--no-audit'], bare)
    expect(said).toContain('apt-get install gcc make libc6-dev')
    expect(said).not.toContain('not found')
    expect(existsSync(join(checkout, 'dist/cli/main.js'))).toBe(true)
    const packed = run('npm', ['pack'], bare)
    expect(packed.status).not.toBe(0)
    expect(packed.stdout + packed.stderr).toContain('bash native-shim/setup-debian.sh')
    expect(readdirSync(checkout).filter((name) => name.endsWith('.tgz'))).toEqual([])
  })
})
