/*
 * Gives an interface a VLAN where the kernel has no VLAN interfaces: what leaves by it is given the tag,
 * and what comes in by it loses one, as an interface `x0.10` would do it. By two BPF programs at the hooks
 * of traffic control (tcx, Linux 6.6), which stay as long as the interface.
 *
 *     vlan-tag IFNAME VID
 */
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Older headers have neither. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define TPID_BIG_ENDIAN 0x0081
#define TCX_PASS 0

static const struct bpf_insn PUSH[] = {
    {.code = BPF_ALU | BPF_K | BPF_MOV, .dst_reg = BPF_REG_2, .imm = TPID_BIG_ENDIAN},
    {.code = BPF_ALU | BPF_K | BPF_MOV, .dst_reg = BPF_REG_3, .imm = 0},
    {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_skb_vlan_push},
    {.code = BPF_ALU | BPF_K | BPF_MOV, .dst_reg = BPF_REG_0, .imm = TCX_PASS},
    {.code = BPF_JMP | BPF_EXIT},
};
static const struct bpf_insn POP[] = {
    {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_skb_vlan_pop},
    {.code = BPF_ALU | BPF_K | BPF_MOV, .dst_reg = BPF_REG_0, .imm = TCX_PASS},
    {.code = BPF_JMP | BPF_EXIT},
};

static int call(int command, union bpf_attr *attributes)
{
    int result = (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
    if (result < 0) {
        perror("vlan-tag: bpf");
        exit(1);
    }
    return result;
}

static void attach(unsigned ifindex, int where, const struct bpf_insn *program, unsigned count)
{
    union bpf_attr load, attachment;
    memset(&load, 0, sizeof load);
    load.prog_type = BPF_PROG_TYPE_SCHED_CLS;
    load.insns = (uintptr_t)program;
    load.insn_cnt = count;
    load.license = (uintptr_t)"";
    memset(&attachment, 0, sizeof attachment);
    /* It is the index of the interface. */
    attachment.target_fd = ifindex;
    attachment.attach_bpf_fd = (uint32_t)call(BPF_PROG_LOAD, &load);
    attachment.attach_type = (uint32_t)where;
    call(BPF_PROG_ATTACH, &attachment);
}

int main(int argc, char **argv)
{
    unsigned ifindex = argc == 3 ? if_nametoindex(argv[1]) : 0;
    if (ifindex == 0) {
        fprintf(stderr, "vlan-tag IFNAME VID\n");
        return 2;
    }
    struct bpf_insn push[sizeof PUSH / sizeof *PUSH];
    memcpy(push, PUSH, sizeof PUSH);
    push[1].imm = atoi(argv[2]);
    attach(ifindex, TCX_EGRESS, push, sizeof PUSH / sizeof *PUSH);
    attach(ifindex, TCX_INGRESS, POP, sizeof POP / sizeof *POP);
    return 0;
}
