/** epoll(7) and poll(2) constants. sys/epoll.h */
export const EPOLL_CTL_ADD = 1
export const EPOLL_CTL_DEL = 2
export const EPOLL_CTL_MOD = 3
export const EPOLLET = -0x8000_0000
export const POLLIN = 1
export const POLLOUT = 4
export const POLLERR = 8
export const POLLHUP = 16
export const EPOLLIN = 1
