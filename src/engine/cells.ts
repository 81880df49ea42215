/** Memory that the control plane and the engine share, cell by cell. */

/** Cells of the shared Int32Array between the control plane and the engine. */
export const SHARED_PENDING = 0
export const SHARED_SLEEPING = 1
/** 1: the process or the thread that owns the engine ends; whoever sets it sets SHARED_PENDING as well. */
export const SHARED_EXIT = 2
/** Answers that somebody waits for who does nothing else, so far. */
export const SHARED_ANSWERS = 3
export const SHARED_WORDS = 16

/** Cells of the shared Float64Array of the engine's own counters. */
export const ENGINE_BURSTS = 0
export const ENGINE_SLEEPS = 1
export const ENGINE_MAC_ENTRIES = 2
export const ENGINE_MAC_MOVES = 3
export const ENGINE_MAC_FULL = 4
/** Seconds in which addresses kept moving between ports. */
export const ENGINE_LOOP_SECONDS = 5
/** Multicast groups that are known, and times that there was no room for one, or for one more port of it. */
export const ENGINE_GROUPS = 6
export const ENGINE_GROUPS_FULL = 7
/** Two for each mirror: frames that it has selected, and their L2 bytes. */
export const ENGINE_MIRRORS = 8
/** Mirrors of one switch: a bit for each. */
export const MIRRORS_MAX = 31
export const ENGINE_COUNTERS: number = ENGINE_MIRRORS + 2 * MIRRORS_MAX
