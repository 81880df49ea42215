/** The program where any user can run it. */
import { chmodSync, cpSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { Lab } from './lab.ts'
import { ROOT } from './lab.ts'
import { sh } from './processes.ts'

/** What an installed package is, where any user can read it; returns its command line. */
export function installFor(lab: Lab): string {
  const home = join(lab.directory, 'package')
  const modules = sh('npm', '--prefix', ROOT, 'ls', '--omit=dev', '--all', '--parseable')
  const paths = ['dist', 'package.json', 'native-shim/build']
  for (const path of modules.trim().split('\n').slice(1)) paths.push(relative(ROOT, path))
  for (const path of paths) cpSync(join(ROOT, path), join(home, path), { recursive: true })
  chmodSync(lab.directory, 0o777)
  return join(home, 'dist/cli/main.js')
}
