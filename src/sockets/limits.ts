/** How much the peers of a socket may have of it. */

/** Connections of a control socket, and those of one user among them. */
export const CONTROL_CONNECTIONS_MAX = 64
export const CONTROL_CONNECTIONS_PER_USER_MAX = 32
/**
 * Descriptors of one connection on their way: received, and not yet taken by whom they are for. It is
 * what a message has at most (SET_MEM_TABLE: VHOST_MEMORY_BASELINE_NREGIONS).
 */
export const CONNECTION_FDS_MAX = 8
