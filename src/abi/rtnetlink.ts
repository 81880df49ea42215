/** rtnetlink messages about links. rtnetlink(7); linux/rtnetlink.h, linux/if_link.h */
export const NLMSG_HEADER_LENGTH = 16
export const IFINFO_LENGTH = 16

export const NLMSG_ERROR = 2
export const RTM_NEWLINK = 16
export const RTM_DELLINK = 17
export const RTM_GETLINK = 18
export const RTM_SETLINK = 19

export const NLM_F_REQUEST = 1
export const NLM_F_ACK = 4
/** On an NLMSG_ERROR: only the header of the request is echoed. */
export const NLM_F_CAPPED = 0x100
export const NLM_F_DUMP = 0x300

/** Multicast group of changes of links. */
export const RTNLGRP_LINK = 1
/** Of recv(2): does not wait. */
export const MSG_DONTWAIT = 0x40

export const IFF_UP = 1
/** There is a carrier. */
export const IFF_LOWER_UP = 0x1_0000

export const IFLA_IFNAME = 3
export const IFLA_MTU = 4
export const IFLA_MASTER = 10
export const IFLA_LINKINFO = 18
/** struct rtnl_link_stats64: u64 each. */
export const IFLA_STATS64 = 23
export const LINK_STATS_RX_DROPPED = 6
export const LINK_STATS_TX_DROPPED = 7
export const IFLA_INFO_KIND = 1
export const IFLA_INFO_DATA = 2
export const IFLA_TUN_NUM_QUEUES = 8
export const IFLA_TUN_NUM_DISABLED_QUEUES = 9

export const NLMSGERR_ATTR_MSG = 1
