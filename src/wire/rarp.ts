/** A broadcast RARP request, by which switches learn where a station is now. RFC 903; what QEMU
 *  sends for a guest that has moved. */
const FRAME_LENGTH = 60

/** 60 bytes, from and about `mac` (6 bytes). */
export function rarpFrame(mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_LENGTH)
  frame.fill(0xff, 0, 6)
  frame.set(mac, 6)
  // Ethertype RARP; hardware Ethernet, protocol IPv4, their lengths, request reverse.
  frame.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12)
  frame.set(mac, 22)
  frame.set(mac, 32)
  return frame
}
