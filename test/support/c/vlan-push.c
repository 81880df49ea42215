/*
 * VLANs on an interface, for kernels without 8021q: what leaves it gets tags, the last as an offload of
 * the interface (not yet in the frame), and what enters it loses as many. By BPF programs at the tcx
 * hooks, in force as long as the interface is there.
 *
 *   vlan-push IFNAME VID [OUTER]       OUTER: a second tag in front, of 802.1ad
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
enum { ETHERTYPE_VLAN = 0x8100, ETHERTYPE_QINQ = 0x88a8 };

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static struct bpf_insn move(int to, int value)
{
	return (struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = to, .imm = value };
}

static struct bpf_insn copy(int to, int from)
{
	return (struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = to, .src_reg = from };
}

static struct bpf_insn call(int helper)
{
	return (struct bpf_insn){ .code = BPF_JMP | BPF_CALL, .imm = helper };
}

/* Runs the program on every frame that passes there. */
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
	union bpf_attr attachment;
	memset(&attachment, 0, sizeof attachment);
	/* The index of the interface, which has a name of its own in newer headers. */
	attachment.target_fd = interface;
	attachment.attach_bpf_fd = (unsigned)fd;
	attachment.attach_type = (unsigned)where;
	if (bpf(BPF_PROG_ATTACH, &attachment) < 0) {
		perror("BPF_PROG_ATTACH");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	unsigned interface = argc == 3 || argc == 4 ? if_nametoindex(argv[1]) : 0;
	if (interface == 0) {
		fputs("usage: vlan-push IFNAME VID [OUTER]\n", stderr);
		return 2;
	}
	struct bpf_insn push[16], pop[16];
	unsigned pushed = 0, popped = 0;
	/* Register 1 holds the frame at the start, and none of 1 to 5 what it held after a call. */
	push[pushed++] = pop[popped++] = copy(BPF_REG_6, BPF_REG_1);
	for (int tag = 2; tag < argc; tag++) {
		push[pushed++] = copy(BPF_REG_1, BPF_REG_6);
		push[pushed++] = move(BPF_REG_2, htons(tag == 2 ? ETHERTYPE_VLAN : ETHERTYPE_QINQ));
		push[pushed++] = move(BPF_REG_3, atoi(argv[tag]));
		push[pushed++] = call(BPF_FUNC_skb_vlan_push);
		pop[popped++] = copy(BPF_REG_1, BPF_REG_6);
		pop[popped++] = call(BPF_FUNC_skb_vlan_pop);
	}
	/* The verdict 0 lets it pass. */
	push[pushed++] = pop[popped++] = move(BPF_REG_0, 0);
	push[pushed++] = pop[popped++] = (struct bpf_insn){ .code = BPF_JMP | BPF_EXIT };
	attach(interface, TCX_EGRESS, push, pushed);
	attach(interface, TCX_INGRESS, pop, popped);
	return 0;
}
