/** strerror(3) texts of glibc, which the TAP error texts contain; libuv's own texts differ. */
import { errnoName } from '../errors.ts'

const TEXTS: Readonly<Record<number, string>> = {
  1: 'Operation not permitted',
  2: 'No such file or directory',
  4: 'Interrupted system call',
  5: 'Input/output error',
  6: 'No such device or address',
  7: 'Argument list too long',
  9: 'Bad file descriptor',
  11: 'Resource temporarily unavailable',
  12: 'Cannot allocate memory',
  13: 'Permission denied',
  14: 'Bad address',
  16: 'Device or resource busy',
  17: 'File exists',
  19: 'No such device',
  20: 'Not a directory',
  21: 'Is a directory',
  22: 'Invalid argument',
  23: 'Too many open files in system',
  24: 'Too many open files',
  25: 'Inappropriate ioctl for device',
  27: 'File too large',
  28: 'No space left on device',
  30: 'Read-only file system',
  32: 'Broken pipe',
  36: 'File name too long',
  38: 'Function not implemented',
  77: 'File descriptor in bad state',
  95: 'Operation not supported',
  98: 'Address already in use',
  104: 'Connection reset by peer',
  105: 'No buffer space available',
  111: 'Connection refused',
}

/** The text for a positive errno. */
export function strerror(errno: number): string {
  return TEXTS[errno] ?? errnoName(-errno)
}
