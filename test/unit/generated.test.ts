/** What is made from definitions is what stands in the repository. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { generatedFiles } from '../../config/generated.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

test('generated files are what npm run generate gives', async () => {
  const files = await generatedFiles(ROOT)
  expect(files.length).toBeGreaterThan(2)
  for (const { path, text } of files) {
    expect(readFileSync(`${ROOT}${path}`, 'utf8'), `${path}: npm run generate`).toBe(text)
  }
})
