/**
 * Makes what runs, in dist, of the compiled modules in build: last step of `npm run build:ts`. Node takes half a
 * millisecond to find, read and link a module, in each thread, and a daemon has 250 of them: in few files, a
 * thread loads what it runs in a tenth of that. The libraries stay packages of their own, the names what they are.
 *
 * All files are one folder deep, as the modules are: what asks for a file by `import.meta.url` finds it from either.
 */
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url))

/** What is started by its name: programs, threads, and the library. */
const ENTRIES = {
  index: 'index.js',
  'cli/main': 'cli/main.js',
  'cli/demo-peer': 'cli/demo-peer.js',
  'engine/worker': 'engine/worker.js',
  'sockets/socket-worker': 'sockets/socket-worker.js',
  'capture/writer-worker': 'capture/writer-worker.js',
  'virtio-net/driver-worker': 'port/virtio-net/driver-worker.js',
}

const input = Object.fromEntries(
  Object.entries(ENTRIES).map(([name, file]) => [name, path(`build/${file}`)]),
)
const bundle = await rolldown({ input, platform: 'node', external: /^(?!\.{0,2}\/)/ })
await bundle.write({ dir: path('dist'), format: 'esm', chunkFileNames: 'chunks/[name].js' })
await bundle.close()
