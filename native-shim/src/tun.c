/* TUN/TAP ioctls, one function each. linux/if_tun.h */
#include "shim.h"

#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#ifndef TUNSETCARRIER
#define TUNSETCARRIER _IOW('T', 226, int)
#endif
#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif

/* ioctl(fd, request, &value) with an int that the kernel reads. */
static napi_value set_by_pointer(napi_env env, napi_callback_info info, unsigned long request)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int value = arg_int(&call, 1);
	return call.ok ? result_errno(env, ioctl(fd, request, &value)) : NULL;
}

/* ioctl(fd, request, value). */
static napi_value set_by_value(napi_env env, napi_callback_info info, unsigned long request)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int value = arg_int(&call, 1);
	return call.ok ? result_errno(env, ioctl(fd, request, (unsigned long)value)) : NULL;
}

/* An int that the kernel writes. */
static napi_value get(napi_env env, napi_callback_info info, unsigned long request)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	unsigned value = 0;
	int result = ioctl(fd, request, &value);
	return result == -1 ? result_int(env, -errno) : result_number(env, value);
}

#define SETTER(name, how, request) \
	static napi_value name(napi_env env, napi_callback_info info) \
	{ \
		return how(env, info, request); \
	}
#define GETTER(name, request) \
	static napi_value name(napi_env env, napi_callback_info info) \
	{ \
		return get(env, info, request); \
	}

GETTER(get_features, TUNGETFEATURES)
GETTER(get_vnet_hdr_size, TUNGETVNETHDRSZ)
GETTER(get_sndbuf, TUNGETSNDBUF)
SETTER(set_offload, set_by_value, TUNSETOFFLOAD)
SETTER(set_persist, set_by_value, TUNSETPERSIST)
SETTER(set_owner, set_by_value, TUNSETOWNER)
SETTER(set_group, set_by_value, TUNSETGROUP)
SETTER(set_vnet_hdr_size, set_by_pointer, TUNSETVNETHDRSZ)
SETTER(set_sndbuf, set_by_pointer, TUNSETSNDBUF)
SETTER(set_carrier, set_by_pointer, TUNSETCARRIER)

static napi_value get_iff(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t length;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	uint8_t *name = arg_bytes(&call, 1, &length);
	if (!call.ok)
		return NULL;
	if (length < IFNAMSIZ)
		return result_int(env, -EINVAL);
	struct ifreq request;
	memset(&request, 0, sizeof request);
	if (ioctl(fd, TUNGETIFF, &request) == -1)
		return result_int(env, -errno);
	memcpy(name, request.ifr_name, IFNAMSIZ);
	return result_int(env, (uint16_t)request.ifr_flags);
}

static napi_value set_queue(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	struct ifreq request;
	memset(&request, 0, sizeof request);
	request.ifr_flags = (short)arg_int(&call, 1);
	return call.ok ? result_errno(env, ioctl(fd, TUNSETQUEUE, &request)) : NULL;
}

static napi_value get_dev_netns(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	return call.ok ? result_errno(env, ioctl(fd, TUNGETDEVNETNS)) : NULL;
}

void register_tun(napi_env env, napi_value exports)
{
	export_function(env, exports, "tunGetFeatures", get_features);
	export_function(env, exports, "tunGetIff", get_iff);
	export_function(env, exports, "tunSetOffload", set_offload);
	export_function(env, exports, "tunGetVnetHdrSize", get_vnet_hdr_size);
	export_function(env, exports, "tunSetVnetHdrSize", set_vnet_hdr_size);
	export_function(env, exports, "tunGetSndbuf", get_sndbuf);
	export_function(env, exports, "tunSetSndbuf", set_sndbuf);
	export_function(env, exports, "tunSetQueue", set_queue);
	export_function(env, exports, "tunSetPersist", set_persist);
	export_function(env, exports, "tunSetOwner", set_owner);
	export_function(env, exports, "tunSetGroup", set_group);
	export_function(env, exports, "tunSetCarrier", set_carrier);
	export_function(env, exports, "tunGetDevNetns", get_dev_netns);
}
