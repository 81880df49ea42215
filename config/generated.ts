/**
 * All files that are made from definitions, as they should be. `npm run generate` writes them, and a test
 * compares.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { format, resolveConfig } from 'prettier'
import { controlReference } from './control-reference.ts'
import { counterReference } from './counter-reference.ts'
import { errorReference } from './error-reference.ts'
import { fileSchema } from './file-schema.ts'
import { manPage } from './man-page.ts'
import { configReference } from './reference.ts'

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
    { path: 'src/stats/README.md', text: counterReference() },
    { path: 'src/errors.md', text: errorReference() },
  ]
  const options = await resolveConfig(join(root, 'package.json'))
  const formatted = await Promise.all(
    files.map(async ({ path, text }) => ({
      path,
      text: await format(text, { ...options, filepath: join(root, path) }),
    })),
  )
  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  return [...formatted, { path: 'config/framepump.1', text: manPage(own.version) }]
}
