/**
 * All files that are made from definitions, as they should be. `npm run generate` writes them, and a test
 * compares.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { format, resolveConfig } from 'prettier'
import { PORT_SCHEMAS } from '../src/port/kinds.control.ts'
import { controlReference } from './control-reference.ts'
import { fileSchema } from './file-schema.ts'
import { configReference, optionTable } from './reference.ts'

export interface GeneratedFile {
  /** From the root of the repository on. */
  readonly path: string
  readonly text: string
}

export async function generatedFiles(root: string): Promise<GeneratedFile[]> {
  const files: GeneratedFile[] = [
    { path: 'config/framepump.schema.json', text: JSON.stringify(fileSchema()) },
    { path: 'config/README.md', text: configReference(root) },
    { path: 'src/control/README.md', text: controlReference() },
    { path: 'README.md', text: readme(readFileSync(join(root, 'README.md'), 'utf8')) },
  ]
  const options = await resolveConfig(join(root, 'package.json'))
  return await Promise.all(
    files.map(async ({ path, text }) => ({
      path,
      text: await format(text, { ...options, filepath: join(root, path) }),
    })),
  )
}

/** Between the marks of each kind stands its table. */
function readme(text: string): string {
  return Object.keys(PORT_SCHEMAS).reduce((before, type) => {
    const [begin, end] = [`<!-- options of ${type}: npm run generate -->`, '<!-- end -->']
    const at = before.indexOf(begin)
    const until = before.indexOf(end, at)
    if (at < 0 || until < 0) throw new Error(`README.md has no place for the options of ${type}`)
    return `${before.slice(0, at)}${begin}\n\n${optionTable(type)}\n\n${before.slice(until)}`
  }, text)
}
