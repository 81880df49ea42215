/** framepump's public API: re-exports only. */
export { FramepumpError, ConfigError, SysError, StateError } from './errors.ts'
export { createSwitch } from './switch/switch.ts'
export type { CreateSwitchOptions } from './switch/switch.ts'
export type * from './switch/api.ts'
export type * from './port/options.ts'
