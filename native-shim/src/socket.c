/* Unix sockets, messages with descriptors; packet sockets, raw sockets of IP, and options of sockets. */
#include "shim.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* SCM_MAX_FD of the kernel. */
enum { FDS_MAX = 253 };

static napi_value socket_unix(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int type = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	return result_errno(env, socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

static napi_value socket_pair(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t count;
	call_begin(&call, env, info, 2);
	int type = arg_int(&call, 0);
	int32_t *fds = arg_ints(&call, 1, &count, false);
	if (!call.ok)
		return NULL;
	if (count < 2)
		return result_int(env, -EINVAL);
	return result_errno(env, socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds));
}

static napi_value with_address(napi_env env, napi_callback_info info,
	int (*use)(int, const struct sockaddr *, socklen_t))
{
	struct call call;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	arg_string(&call, 1, address.sun_path, sizeof address.sun_path);
	if (!call.ok)
		return NULL;
	if (call.refused != 0)
		return result_int(env, -call.refused);
	return result_errno(env, RETRY(use(fd, (struct sockaddr *)&address, sizeof address)));
}

static napi_value bind_unix(napi_env env, napi_callback_info info)
{
	return with_address(env, info, bind);
}

static napi_value connect_unix(napi_env env, napi_callback_info info)
{
	return with_address(env, info, connect);
}

/* A name without a file: a NUL goes before it, and its length is part of it. */
static napi_value connect_abstract(napi_env env, napi_callback_info info)
{
	struct call call;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	/* The longest name fills the address: the string's end has no room in it. */
	char text[sizeof address.sun_path];
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	arg_string(&call, 1, text, sizeof text);
	if (!call.ok)
		return NULL;
	if (call.refused != 0)
		return result_int(env, -call.refused);
	size_t length = strlen(text);
	memcpy(address.sun_path + 1, text, length);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
	return result_errno(env, RETRY(connect(fd, (struct sockaddr *)&address, size)));
}

static napi_value listen_fd(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int backlog = arg_int(&call, 1);
	return call.ok ? result_errno(env, listen(fd, backlog)) : NULL;
}

static napi_value accept_fd(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	return result_errno(env, RETRY(accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)));
}

static napi_value peer_credentials(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t count;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int32_t *out = arg_ints(&call, 1, &count, false);
	if (!call.ok)
		return NULL;
	struct ucred credentials;
	socklen_t size = sizeof credentials;
	if (count < 3)
		return result_int(env, -EINVAL);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == -1)
		return result_int(env, -errno);
	out[0] = credentials.pid;
	out[1] = (int32_t)credentials.uid;
	out[2] = (int32_t)credentials.gid;
	return result_int(env, 0);
}

static napi_value shutdown_fd(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int how = arg_int(&call, 1);
	return call.ok ? result_errno(env, shutdown(fd, how)) : NULL;
}

/* Hands descriptors to the caller's array and closes those that do not fit: none leaks. */
static int32_t take_descriptors(struct msghdr *message, int32_t *fds, size_t capacity)
{
	int32_t count = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t k = 0; k < got; k++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + k * sizeof(int), sizeof fd);
			if ((size_t)count < capacity)
				fds[count++] = fd;
			else
				close(fd);
		}
	}
	return count;
}

static napi_value recv_msg(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t data_length;
	size_t fds_count;
	size_t info_count;
	call_begin(&call, env, info, 5);
	int fd = arg_int(&call, 0);
	uint8_t *data = arg_bytes(&call, 1, &data_length);
	int32_t *fds = arg_ints(&call, 2, &fds_count, false);
	int32_t *out = arg_ints(&call, 3, &info_count, false);
	int flags = arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	if (info_count < 2)
		return result_int(env, -EINVAL);
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = { data, data_length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes };
	ssize_t got = RETRY(recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC));
	if (got == -1)
		return result_int(env, -errno);
	out[0] = take_descriptors(&message, fds, fds_count);
	out[1] = message.msg_flags;
	return result_int(env, (int32_t)got);
}

static napi_value send_msg(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t data_length;
	size_t fds_count;
	call_begin(&call, env, info, 7);
	int fd = arg_int(&call, 0);
	uint8_t *data = arg_bytes(&call, 1, &data_length);
	int32_t offset = arg_int(&call, 2);
	int32_t length = arg_int(&call, 3);
	int32_t *fds = arg_ints(&call, 4, &fds_count, true);
	int32_t fd_count = arg_int(&call, 5);
	int flags = arg_int(&call, 6);
	if (!call.ok)
		return NULL;
	if (offset < 0 || length < 0 || (uint64_t)offset + (uint64_t)length > data_length ||
	    fd_count < 0 || fd_count > FDS_MAX || (size_t)fd_count > fds_count)
		return result_int(env, -EINVAL);
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = { data + offset, (size_t)length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	if (fd_count > 0) {
		size_t bytes = (size_t)fd_count * sizeof(int);
		memset(&control, 0, sizeof control);
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(bytes);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(c), fds, bytes);
	}
	return result_errno(env, RETRY(sendmsg(fd, &message, flags | MSG_NOSIGNAL)));
}

static napi_value bind_packet(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 3);
	int fd = arg_int(&call, 0);
	int protocol = arg_int(&call, 1);
	int ifindex = arg_int(&call, 2);
	if (!call.ok)
		return NULL;
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
		.sll_protocol = htons((uint16_t)protocol), .sll_ifindex = ifindex };
	return result_errno(env, bind(fd, (struct sockaddr *)&address, sizeof address));
}

static napi_value packet_name(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t count;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int32_t *out = arg_ints(&call, 1, &count, false);
	if (!call.ok)
		return NULL;
	if (count < 3)
		return result_int(env, -EINVAL);
	struct sockaddr_ll address = { 0 };
	socklen_t size = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &size) == -1)
		return result_int(env, -errno);
	if (address.sll_family != AF_PACKET)
		return result_int(env, -EAFNOSUPPORT);
	out[0] = ntohs(address.sll_protocol);
	out[1] = address.sll_ifindex;
	out[2] = address.sll_hatype;
	return result_int(env, 0);
}

static napi_value socket_gre(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int family = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	return result_errno(env, socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_GRE));
}

/* An address of no bytes: to nobody any more. */
static napi_value connect_ip(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t length;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	uint8_t *bytes = arg_bytes(&call, 1, &length);
	if (!call.ok)
		return NULL;
	union {
		struct sockaddr any;
		struct sockaddr_in ip;
		struct sockaddr_in6 ipv6;
	} address = { .ipv6 = { 0 } };
	socklen_t size;
	if (length == 0) {
		address.any.sa_family = AF_UNSPEC;
		size = sizeof address.any;
	} else if (length == sizeof address.ip.sin_addr) {
		address.ip.sin_family = AF_INET;
		memcpy(&address.ip.sin_addr, bytes, length);
		size = sizeof address.ip;
	} else if (length == sizeof address.ipv6.sin6_addr) {
		address.ipv6.sin6_family = AF_INET6;
		memcpy(&address.ipv6.sin6_addr, bytes, length);
		size = sizeof address.ipv6;
	} else {
		return result_int(env, -EINVAL);
	}
	return result_errno(env, RETRY(connect(fd, &address.any, size)));
}

static napi_value get_socket_option(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t length;
	call_begin(&call, env, info, 4);
	int fd = arg_int(&call, 0);
	int level = arg_int(&call, 1);
	int name = arg_int(&call, 2);
	uint8_t *value = arg_bytes(&call, 3, &length);
	if (!call.ok)
		return NULL;
	socklen_t size = (socklen_t)length;
	if (getsockopt(fd, level, name, value, &size) == -1)
		return result_int(env, -errno);
	return result_int(env, (int32_t)size);
}

static napi_value set_socket_option(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t length;
	call_begin(&call, env, info, 4);
	int fd = arg_int(&call, 0);
	int level = arg_int(&call, 1);
	int name = arg_int(&call, 2);
	uint8_t *value = arg_bytes(&call, 3, &length);
	if (!call.ok)
		return NULL;
	return result_errno(env, setsockopt(fd, level, name, value, (socklen_t)length));
}

void register_socket(napi_env env, napi_value exports)
{
	export_function(env, exports, "socketUnix", socket_unix);
	export_function(env, exports, "socketPair", socket_pair);
	export_function(env, exports, "bindUnix", bind_unix);
	export_function(env, exports, "connectUnix", connect_unix);
	export_function(env, exports, "connectAbstract", connect_abstract);
	export_function(env, exports, "listen", listen_fd);
	export_function(env, exports, "accept", accept_fd);
	export_function(env, exports, "peerCredentials", peer_credentials);
	export_function(env, exports, "shutdown", shutdown_fd);
	export_function(env, exports, "recvMsg", recv_msg);
	export_function(env, exports, "sendMsg", send_msg);
	export_function(env, exports, "bindPacket", bind_packet);
	export_function(env, exports, "packetName", packet_name);
	export_function(env, exports, "socketGre", socket_gre);
	export_function(env, exports, "connectIp", connect_ip);
	export_function(env, exports, "getSocketOption", get_socket_option);
	export_function(env, exports, "setSocketOption", set_socket_option);
}
