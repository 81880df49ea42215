/*
 * Calls that happen in another network namespace: there and back within one call, so that
 * JavaScript never runs in a thread that is elsewhere.
 */
#include "shim.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef NETLINK_EXT_ACK
#define NETLINK_EXT_ACK 11
#endif

/* Enters the namespace; returns a descriptor of the one we come from, -1 for none, or -errno. */
static int enter(int netns_fd, int *home)
{
	*home = -1;
	if (netns_fd < 0)
		return 0;
	*home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (*home == -1)
		return -errno;
	if (setns(netns_fd, CLONE_NEWNET) == 0)
		return 0;
	int failed = errno;
	close(*home);
	*home = -1;
	return -failed;
}

static void go_back(int home)
{
	if (home < 0)
		return;
	if (setns(home, CLONE_NEWNET) == -1) {
		/* This thread would go on in a namespace that nobody expects. */
		perror("framepump: setns back");
		abort();
	}
	close(home);
}

static napi_value netlink_route(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int netns_fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	int home;
	int entered = enter(netns_fd, &home);
	if (entered < 0)
		return result_int(env, entered);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int failed = errno;
	go_back(home);
	if (fd == -1)
		return result_int(env, -failed);
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	struct timeval patience = { .tv_sec = 2 };
	int on = 1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) == -1) {
		failed = errno;
		close(fd);
		return result_int(env, -failed);
	}
	return result_int(env, fd);
}

static napi_value netlink_join(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int group = arg_int(&call, 1);
	if (!call.ok)
		return NULL;
	return result_errno(env,
		setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
}

/* Protocol 0: it receives nothing until it is bound. */
static napi_value socket_packet(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int netns_fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	int home;
	int entered = enter(netns_fd, &home);
	if (entered < 0)
		return result_int(env, entered);
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int failed = errno;
	go_back(home);
	return result_int(env, fd == -1 ? -failed : fd);
}

static int open_and_set(const char *path, const char *name, int flags, struct ifreq *request,
	int32_t *stage)
{
	*stage = 1;
	int fd = RETRY(open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK));
	if (fd == -1)
		return -errno;
	*stage = 2;
	memset(request, 0, sizeof *request);
	memcpy(request->ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	request->ifr_flags = (short)flags;
	if (ioctl(fd, TUNSETIFF, request) == -1) {
		int failed = errno;
		close(fd);
		return -failed;
	}
	*stage = 3;
	return fd;
}

static napi_value tun_open(napi_env env, napi_callback_info info)
{
	struct call call;
	char path[256];
	char name[IFNAMSIZ];
	size_t name_length;
	size_t stage_count;
	call_begin(&call, env, info, 6);
	int netns_fd = arg_int(&call, 0);
	arg_string(&call, 1, path, sizeof path);
	arg_string(&call, 2, name, sizeof name);
	int flags = arg_int(&call, 3);
	uint8_t *name_out = arg_bytes(&call, 4, &name_length);
	int32_t *stage = arg_ints(&call, 5, &stage_count, false);
	if (!call.ok)
		return NULL;
	if (name_length < IFNAMSIZ || stage_count < 1)
		return result_int(env, -EINVAL);
	*stage = 0;
	if (call.refused != 0)
		return result_int(env, -call.refused);
	int home;
	int entered = enter(netns_fd, &home);
	if (entered < 0)
		return result_int(env, entered);
	struct ifreq request;
	int fd = open_and_set(path, name, flags, &request, stage);
	go_back(home);
	if (fd >= 0)
		memcpy(name_out, request.ifr_name, IFNAMSIZ);
	return result_int(env, fd);
}

void register_netns(napi_env env, napi_value exports)
{
	export_function(env, exports, "netlinkRoute", netlink_route);
	export_function(env, exports, "netlinkJoin", netlink_join);
	export_function(env, exports, "socketPacket", socket_packet);
	export_function(env, exports, "tunOpen", tun_open);
}
