/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Wakes user space when the kernel begins to eject a scheduler. It loads on every kernel, and attaches where the kernel has
 * the tracepoint, from 7.3 on. User space reads elsewhere what happened: the tracepoint's arguments are not needed, and they
 * may change.
 */
#include <scx/common.bpf.h>

char _license[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} exits SEC(".maps");

SEC("raw_tp/sched_ext_exit")
int exits_wake(void *ctx)
{
	u64 now = bpf_ktime_get_ns();

	bpf_ringbuf_output(&exits, &now, sizeof(now), BPF_RB_FORCE_WAKEUP);
	return 0;
}
