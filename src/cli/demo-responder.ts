/**
 * A host made of one function: it answers ARP requests and pings for one IPv4 address, as the driver
 * of an in-process virtio-net device. RFC 826, RFC 792.
 */
import type { VirtioNetPort } from '../switch/api.ts'

const ETHERTYPE_ARP = 0x0806
const ETHERTYPE_IPV4 = 0x0800
const ARP_REQUEST = 1
const ARP_REPLY = 2
const IPPROTO_ICMP = 1
const ICMP_ECHO_REQUEST = 8
/** Offsets from the start of the frame; IPv4 without options. */
const ARP_OPERATION = 20
const ARP_SENDER = 22
const ARP_TARGET_IP = 38
const IPV4_PROTOCOL = 23
const IPV4_SOURCE = 26
const IPV4_DESTINATION = 30
const ICMP_TYPE = 34
const ICMP_CHECKSUM = 36

/** Answers until the signal aborts. */
export async function respond(
  port: VirtioNetPort,
  address: string,
  signal: AbortSignal,
): Promise<void> {
  const ip = Uint8Array.from(address.split('.'), Number)
  const { mac } = port.config
  try {
    for (;;) {
      const { frame } = await port.next({ signal })
      const answer = answerTo(frame, mac, ip)
      if (answer !== null) port.send(answer)
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

function answerTo(frame: Uint8Array, mac: Uint8Array, ip: Uint8Array): Uint8Array | null {
  if (frame.length < ICMP_CHECKSUM + 2) return null
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length)
  const isOurs = (offset: number): boolean => ip.every((byte, at) => frame[offset + at] === byte)
  switch (view.getUint16(12)) {
    case ETHERTYPE_ARP: {
      const isAsked = view.getUint16(ARP_OPERATION) === ARP_REQUEST
      if (!isAsked || frame.length < ARP_TARGET_IP + 4 || !isOurs(ARP_TARGET_IP)) return null
      view.setUint16(ARP_OPERATION, ARP_REPLY)
      // The sender becomes the target, hardware and protocol address together.
      frame.copyWithin(ARP_SENDER + 10, ARP_SENDER, ARP_SENDER + 10)
      frame.set(mac, ARP_SENDER)
      frame.set(ip, ARP_SENDER + 6)
      break
    }
    case ETHERTYPE_IPV4: {
      const isPing = frame[IPV4_PROTOCOL] === IPPROTO_ICMP && frame[ICMP_TYPE] === ICMP_ECHO_REQUEST
      if (!isPing || !isOurs(IPV4_DESTINATION)) return null
      frame.copyWithin(IPV4_DESTINATION, IPV4_SOURCE, IPV4_SOURCE + 4)
      frame.set(ip, IPV4_SOURCE)
      frame[ICMP_TYPE] = 0
      // The ones' complement sum has lost 0x0800: so the checksum gains it.
      const sum = view.getUint16(ICMP_CHECKSUM) + (ICMP_ECHO_REQUEST << 8)
      view.setUint16(ICMP_CHECKSUM, (sum & 0xffff) + (sum >>> 16))
      break
    }
    default:
      return null
  }
  frame.copyWithin(0, 6, 12)
  frame.set(mac, 6)
  return frame
}
