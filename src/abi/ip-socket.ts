/** Raw sockets of IP. ip(7), ipv6(7), raw(7); linux/in.h, linux/in6.h; names as there. */
export const AF_INET = 2
export const AF_INET6 = 10

export const IPPROTO_IP = 0
export const IPPROTO_IPV6 = 41

export const IP_MTU_DISCOVER = 10
/** Of the path; known of a connected socket. */
export const IP_MTU = 14
export const IPV6_MTU_DISCOVER = 23
export const IPV6_MTU = 24
export const IPV6_DONTFRAG = 62
/** Nothing is fragmented: what is too long is refused with EMSGSIZE. The same number for both. */
export const PMTUDISC_DO = 2

export const IPV4_HEADER_LENGTH = 20
export const IPV6_HEADER_LENGTH = 40
