/** Names of link types that capture files come with, for errors. The full list is at tcpdump.org. */
import { LINKTYPE_ETHERNET } from '../abi/pcapng.ts'

const NAMES: Readonly<Record<number, string>> = {
  0: 'BSD loopback',
  6: 'Token Ring',
  8: 'SLIP',
  9: 'PPP',
  10: 'FDDI',
  50: 'PPP over serial',
  51: 'PPPoE',
  100: 'ATM',
  101: 'raw IP',
  104: 'Cisco HDLC',
  105: '802.11',
  107: 'Frame Relay',
  108: 'OpenBSD loopback',
  113: 'Linux cooked',
  119: '802.11 with Prism header',
  127: '802.11 with radiotap',
  129: 'Linux ARCNET',
  143: 'DOCSIS',
  187: 'Bluetooth',
  189: 'USB',
  192: 'PPI',
  195: '802.15.4',
  201: 'Bluetooth',
  220: 'USB',
  227: 'CAN',
  228: 'raw IPv4',
  229: 'raw IPv6',
  239: 'NFLOG',
  249: 'USB',
  253: 'netlink',
  274: 'Ethernet with preamble',
  276: 'Linux cooked, version 2',
}

/** Why frames of this link type are not replayed. */
export function refuseLinkType(linkType: number): string {
  const isUsers = linkType >= 147 && linkType <= 162
  const name = isUsers ? 'private use' : NAMES[linkType]
  const what = name === undefined ? String(linkType) : `${linkType} (${name})`
  return `link type ${what} is not Ethernet (${LINKTYPE_ETHERNET})`
}
