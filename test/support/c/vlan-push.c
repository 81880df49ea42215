/*
 * A VLAN on an interface, for kernels without 8021q: what leaves it gets a tag, as an offload of the
 * interface (not yet in the frame), and what enters it loses its own. By BPF programs at the tcx hooks,
 * in force while this runs.
 *
 *   vlan-push IFNAME VID          prints "ready"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* enum bpf_attach_type of Linux 6.6, which older headers lack. */
enum { TCX_INGRESS = 46, TCX_EGRESS = 47 };
enum { ETHERTYPE_VLAN = 0x8100 };

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static struct bpf_insn move(int to, int value)
{
	return (struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = to, .imm = value };
}

static struct bpf_insn call(int helper)
{
	return (struct bpf_insn){ .code = BPF_JMP | BPF_CALL, .imm = helper };
}

/* Runs the program on every frame that passes there; it ends with the process. */
static void attach(unsigned interface, int where, const struct bpf_insn *program, unsigned length)
{
	static char log[4096];
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_SCHED_CLS,
		.insns = (uintptr_t)program,
		.insn_cnt = length,
		.license = (uintptr_t) "GPL",
		.log_buf = (uintptr_t)log,
		.log_size = sizeof log,
		.log_level = 1,
	};
	int fd = bpf(BPF_PROG_LOAD, &load);
	if (fd < 0) {
		perror("BPF_PROG_LOAD");
		fputs(log, stderr);
		exit(1);
	}
	union bpf_attr link;
	memset(&link, 0, sizeof link);
	link.link_create.prog_fd = (unsigned)fd;
	link.link_create.target_fd = interface;
	link.link_create.attach_type = (unsigned)where;
	if (bpf(BPF_LINK_CREATE, &link) < 0) {
		perror("BPF_LINK_CREATE");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	unsigned interface = argc == 3 ? if_nametoindex(argv[1]) : 0;
	if (interface == 0) {
		fputs("usage: vlan-push IFNAME VID\n", stderr);
		return 2;
	}
	const struct bpf_insn end = { .code = BPF_JMP | BPF_EXIT };
	/* Register 1 holds the frame at the start; the verdict 0 lets it pass. */
	const struct bpf_insn push[] = {
		move(BPF_REG_2, htons(ETHERTYPE_VLAN)),
		move(BPF_REG_3, atoi(argv[2])),
		call(BPF_FUNC_skb_vlan_push),
		move(BPF_REG_0, 0),
		end,
	};
	const struct bpf_insn pop[] = { call(BPF_FUNC_skb_vlan_pop), move(BPF_REG_0, 0), end };
	attach(interface, TCX_EGRESS, push, sizeof push / sizeof *push);
	attach(interface, TCX_INGRESS, pop, sizeof pop / sizeof *pop);
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
