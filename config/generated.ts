/**
 * All files that are made from definitions, as they should be. `npm run generate` writes them, and a test
 * compares.
 */
import { join } from 'node:path'
import { format, resolveConfig } from 'prettier'
import { controlReference } from './control-reference.ts'
import { fileSchema } from './file-schema.ts'
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
  ]
  const options = await resolveConfig(join(root, 'package.json'))
  return await Promise.all(
    files.map(async ({ path, text }) => ({
      path,
      text: await format(text, { ...options, filepath: join(root, path) }),
    })),
  )
}
