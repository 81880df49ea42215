/** Makes several things that hold memory, or none. Control plane. */

type Owned = { close(): void } | { unmap(): void }

/** `make` hands each thing to `own` as soon as it has it; when it throws, those are let go of. */
export function ownAll<T>(make: (own: <R extends Owned>(thing: R) => R) => T): T {
  const owned: Owned[] = []
  try {
    return make((thing) => {
      owned.push(thing)
      return thing
    })
  } catch (error) {
    for (const thing of owned.toReversed()) {
      if ('unmap' in thing) thing.unmap()
      else thing.close()
    }
    throw error
  }
}
