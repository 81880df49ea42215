/** What ports have in common behind which there is no device, but a program or a file. */
export abstract class DevicelessPort {
  readonly acceptsPostponedPeer = false
  readonly hasNoMerging = true
  readonly queues = 1
  readonly vnetHdrLength = 0
  readonly rxOffloads = 0

  setCarrier(): void {
    // There is no interface that could show it.
  }
}
