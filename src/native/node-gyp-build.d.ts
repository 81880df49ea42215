declare module 'node-gyp-build' {
  /** Loads `build/Release/*.node` of the directory, else the fitting file of `prebuilds/`. */
  export default function nodeGypBuild(directory: string): unknown
}
