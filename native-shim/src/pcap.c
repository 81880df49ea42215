/*
 * libpcap's compiler of filters. It is not linked: whoever starts a process that compiles has the library
 * loaded there before the shim (LD_PRELOAD), and nowhere else are these functions.
 */
#include "shim.h"

#include <linux/filter.h>
#include <string.h>

enum { DLT_EN10MB = 1, SNAP_LENGTH = 262144, TEXT_MAX = 65536 };
#define NETMASK_UNKNOWN 0xffffffffU

/* As in pcap/bpf.h; an instruction is a struct sock_filter. */
struct bpf_program {
	unsigned int bf_len;
	struct sock_filter *bf_insns;
};
struct pcap;

extern struct pcap *pcap_open_dead(int linktype, int snaplen) __attribute__((weak));
extern int pcap_compile(struct pcap *pcap, struct bpf_program *program, const char *text, int optimize,
	unsigned int netmask) __attribute__((weak));
extern char *pcap_geterr(struct pcap *pcap) __attribute__((weak));
extern void pcap_freecode(struct bpf_program *program) __attribute__((weak));
extern void pcap_close(struct pcap *pcap) __attribute__((weak));

static bool is_loaded(void)
{
	return pcap_open_dead != NULL && pcap_compile != NULL && pcap_geterr != NULL &&
		pcap_freecode != NULL && pcap_close != NULL;
}

/* Instructions, or -errno; -EINVAL with what is wrong in `message`. */
static int32_t compile(const char *text, int32_t *ints, size_t room, uint8_t *message, size_t message_room)
{
	struct pcap *pcap = pcap_open_dead(DLT_EN10MB, SNAP_LENGTH);
	if (pcap == NULL)
		return -ENOMEM;
	struct bpf_program program = { 0 };
	int32_t result = -EINVAL;
	if (pcap_compile(pcap, &program, text, 1, NETMASK_UNKNOWN) == 0) {
		result = -E2BIG;
		if (program.bf_len <= room / 2) {
			result = (int32_t)program.bf_len;
			memcpy(ints, program.bf_insns, program.bf_len * sizeof *program.bf_insns);
		}
		pcap_freecode(&program);
	} else if (message_room > 0) {
		strncpy((char *)message, pcap_geterr(pcap), message_room - 1);
	}
	pcap_close(pcap);
	return result;
}

static napi_value filter_compile(napi_env env, napi_callback_info info)
{
	char text[TEXT_MAX];
	struct call call;
	size_t room = 0;
	size_t message_room = 0;
	call_begin(&call, env, info, 3);
	arg_string(&call, 0, text, sizeof text);
	int32_t *program = arg_ints(&call, 1, &room, false);
	uint8_t *message = arg_bytes(&call, 2, &message_room);
	if (!call.ok)
		return NULL;
	if (call.refused != 0)
		return result_int(env, -call.refused);
	if (!is_loaded())
		return result_int(env, -ENOSYS);
	return result_int(env, compile(text, program, room, message, message_room));
}

void register_pcap(napi_env env, napi_value exports)
{
	export_function(env, exports, "filterCompile", filter_compile);
}
