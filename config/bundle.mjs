/**
 * Makes what runs, in dist, of the compiled modules in build: last step of `npm run build:ts`. Node takes half a
 * millisecond to find, read and link a module, in each thread, and a daemon has 250 of them: in few files, a
 * thread loads what it runs in a tenth of that. The libraries stay packages of their own, the names what they are.
 *
 * All files are one folder deep, as the modules are: what asks for a file by `import.meta.url` finds it from either.
 */
import { fileURLToPath } from 'node:url'
import { Ajv } from 'ajv'
import standalone from 'ajv/dist/standalone/index.js'
import { rolldown } from 'rolldown'
import { CONFIG_SCHEMA } from '../build/config/schema.js'
import { VALIDATOR_OPTIONS } from '../build/config/validate.js'
import { fileScalar, toJsonSchema } from '../build/schema/json-schema.js'

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url))

/** What is started by its name: programs, threads, and the library. */
const ENTRIES = {
  index: 'index.js',
  'cli/main': 'cli/main.js',
  'cli/demo-peer': 'cli/demo-peer.js',
  'engine/worker': 'engine/worker.js',
  'sockets/socket-worker': 'sockets/socket-worker.js',
  'capture/writer-worker': 'capture/writer-worker.js',
  'filter/compiler': 'filter/compiler.js',
  'virtio-net/driver-worker': 'port/virtio-net/driver-worker.js',
}

const input = Object.fromEntries(
  Object.entries(ENTRIES).map(([name, file]) => [name, path(`build/${file}`)]),
)

/** Has the code that ajv makes of the schema in the place of the module that has ajv make it. */
const made = 'made:validator'
const validator = {
  name: 'validator',
  resolveId: (id) => (id === made ? id : null),
  load(id) {
    if (id === made) {
      const ajv = new Ajv({ ...VALIDATOR_OPTIONS, code: { source: true, esm: true, lines: true } })
      const code = standalone.default(ajv, ajv.compile(toJsonSchema(CONFIG_SCHEMA, fileScalar)))
      return `/*! With parts of ajv and fast-deep-equal, (c) Evgeny Poberezkin, MIT License */\n${code}`
    }
    if (id !== path('build/config/validate.js')) return null
    return `import compiled from '${made}'
export function validate(raw) {
  compiled(raw)
  return compiled.errors ?? []
}`
  },
}

const bundle = await rolldown({
  input,
  platform: 'node',
  plugins: [validator],
  external: /^(?!\.{0,2}\/|made:|ajv\/dist\/runtime|fast-deep-equal)/,
})
await bundle.write({ dir: path('dist'), format: 'esm', chunkFileNames: 'chunks/[name].js' })
await bundle.close()
