/** How a new port is opened: at once, or postponed; or it is kept as one that failed. */
import { ConfigError } from '../errors.ts'
import type { PortOptions } from '../port/options.ts'
import { FailedControlPort } from '../port/failed.control.ts'
import type { ControlPort, ControlPortContext } from '../port/control-port.ts'
import { explain } from '../text.ts'
import { openPort, postponePort } from '../port/kinds.control.ts'

export interface Opened {
  readonly open: ControlPort
  /** In an incoming instance: why it was opened at once. */
  readonly notPostponed: string | undefined
}

/** `keepsUnusable`: what is stored of a guest must not keep the other ports from starting. */
export async function openOrPostpone(
  options: PortOptions,
  context: ControlPortContext,
  keepsUnusable: boolean,
): Promise<Opened> {
  const isWaiting = context.takesOver === true
  const postponed = postponePort(options, isWaiting)
  if (typeof postponed !== 'string') return { open: postponed, notPostponed: undefined }
  const notPostponed = isWaiting ? postponed : undefined
  try {
    return { open: await openPort(options, context), notPostponed }
  } catch (error) {
    const isStored = error instanceof ConfigError && error.code === 'VHOST_USER_ACKED'
    if (!keepsUnusable || !isStored) throw error
    return { open: new FailedControlPort(options, explain(error)), notPostponed }
  }
}
