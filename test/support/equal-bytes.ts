/** Loaded by each test file (config/vitest.config.ts): bytes are compared as a whole, not one by one. */
import { expect } from 'vitest'

expect.addEqualityTesters([
  (one: unknown, other: unknown) =>
    one instanceof Uint8Array && other instanceof Uint8Array
      ? Buffer.compare(one, other) === 0
      : undefined,
])
