/** Files that may keep whoever reads them waiting, which the engine must not. */

/**
 * Why a file is not mapped, null: it may be. A page of it that is not resident is read by whoever
 * touches it: the engine must not wait for a server, least of all one that the guest's user runs
 * (FUSE). Local file systems over several devices (btrfs, overlayfs) cannot be told from those.
 * `seals` and `deviceMajor` are as the shim's functions answer.
 */
export function fileRefusal(seals: number, deviceMajor: number): string | null {
  if (seals >= 0 || deviceMajor > 0) return null
  return 'the file is neither memory (memfd, tmpfs, hugetlbfs) nor on a local disk'
}
