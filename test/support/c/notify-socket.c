/*
 * What systemd is to a service: receives its datagrams, each with the pid of its sender.
 *
 *   notify-socket PATH|@NAME      prints "ready", then a line for each: PID FIELD|FIELD|...
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = argc == 2 ? strlen(argv[1]) : 0;
	if (length == 0 || length > sizeof address.sun_path)
		return 2;
	memcpy(address.sun_path, argv[1], length);
	socklen_t size = offsetof(struct sockaddr_un, sun_path) + length;
	if (argv[1][0] == '@')
		address.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int on = 1;
	umask(0);
	if (bind(fd, (struct sockaddr *)&address, size) == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == -1) {
		perror(argv[1]);
		return 1;
	}
	setlinebuf(stdout);
	puts("ready");
	for (;;) {
		char text[4096];
		union {
			char bytes[CMSG_SPACE(sizeof(struct ucred))];
			struct cmsghdr align;
		} control;
		struct iovec part = { text, sizeof text - 1 };
		struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1,
			.msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
		ssize_t length = recvmsg(fd, &message, 0);
		if (length == -1)
			return 1;
		text[length] = 0;
		for (char *at = text; *at != 0; at++)
			if (*at == '\n')
				*at = '|';
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		struct ucred sender = { 0 };
		if (c != NULL && c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&sender, CMSG_DATA(c), sizeof sender);
		printf("%d %s\n", (int)sender.pid, text);
	}
}
