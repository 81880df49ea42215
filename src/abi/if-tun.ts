/** TUN/TAP flags and offload bits. linux/if_tun.h; names as there. */
export const IFNAMSIZ = 16
/** Longest interface name in bytes; the kernel silently cuts longer ones, so we refuse them. */
export const IFNAME_LENGTH_MAX = 15

export const IFF_TUN = 0x0001
export const IFF_TAP = 0x0002
export const IFF_NAPI = 0x0010
export const IFF_NO_PI = 0x1000
export const IFF_ONE_QUEUE = 0x2000
export const IFF_VNET_HDR = 0x4000
export const IFF_MULTI_QUEUE = 0x0100
export const IFF_ATTACH_QUEUE = 0x0200
export const IFF_DETACH_QUEUE = 0x0400
export const IFF_PERSIST = 0x0800

export const TUN_F_CSUM = 0x01
export const TUN_F_TSO4 = 0x02
export const TUN_F_TSO6 = 0x04
export const TUN_F_TSO_ECN = 0x08
export const TUN_F_UFO = 0x10
export const TUN_F_USO4 = 0x20
export const TUN_F_USO6 = 0x40
export const TUN_F_UDP_TUNNEL_GSO = 0x80
export const TUN_F_UDP_TUNNEL_GSO_CSUM = 0x100

/** MAX_TAP_QUEUES of the kernel: the 257th is E2BIG. */
export const TAP_QUEUES_MAX = 256
