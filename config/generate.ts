/** Writes what is made from definitions: `npm run generate`, in the root of the repository. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generatedFiles } from './generated.ts'

for (const { path, text } of await generatedFiles(process.cwd())) {
  writeFileSync(join(process.cwd(), path), text)
}
