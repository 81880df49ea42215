/*
 * deny ERRNO N,N,... -- COMMAND ...: system calls of these numbers fail with that error in the command,
 * as in a container whose seccomp profile does not know them.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { CALLS_MAX = 500 };

int main(int argc, char **argv)
{
	struct sock_filter filter[2 * CALLS_MAX + 2];
	unsigned short length = 0;

	if (argc < 4)
		return 2;
	filter[length++] = (struct sock_filter)BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (char *at = argv[2]; *at != 0 && length < 2 * CALLS_MAX;) {
		unsigned call = (unsigned)strtoul(at, &at, 10);
		if (*at == ',')
			at++;
		filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
		filter[length++] = (struct sock_filter)BPF_STMT(
			BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)atoi(argv[1]));
	}
	filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { length, filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
		perror("seccomp");
		return 1;
	}
	execvp(argv[3], argv + 3);
	perror(argv[3]);
	return 1;
}
