/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads what decides whether the kernel accepts a scheduler, and what no file shows: the deadline bandwidth of each CPU's
 * root domain, and whether core scheduling is in use. User space calls it once for each CPU. It changes nothing.
 */
#include <scx/common.bpf.h>
#include <bpf/bpf_core_read.h>

char _license[] SEC("license") = "GPL";

extern struct rq runqueues __ksym;

/* Exists with CONFIG_SCHED_CORE only. The kernel of the scx headers lacks it. */
struct rq___core {
	unsigned int	core_enabled;
} __attribute__((preserve_access_index));

#define MACHINE_SERVERS		1	/* the kernel reserves bandwidth when a scheduler is attached */
#define MACHINE_FAIR_ATTACHED	2	/* the fair server's bandwidth is in total_bw */
#define MACHINE_EXT_ATTACHED	4	/* the ext server's bandwidth is in total_bw */
#define MACHINE_CORE_SCHED	8	/* some task has a core scheduling cookie */

/* Argument and result of machine_read_cpu(). Bandwidths are in 1 / 2^20 of a CPU, as in the kernel. */
struct machine_cpu {
	u32	cpu;		/* in */
	u32	flags;		/* MACHINE_* */
	u64	domain;		/* tells one root domain from another */
	u64	limit;		/* what each CPU of the domain may reserve; -1: no limit */
	u64	total;		/* what is reserved on all CPUs of the domain */
	u64	fair;		/* the fair server's bandwidth, attached or not */
	u64	ext;		/* the ext server's */
};

SEC("syscall")
int machine_read_cpu(struct machine_cpu *args)
{
	struct machine_cpu cpu = { .cpu = args->cpu };
	struct rq *rq = bpf_per_cpu_ptr(&runqueues, cpu.cpu);
	struct rq___core *core = (void *)rq;
	struct root_domain *rd;

	if (!rq)
		return -ENOENT;
	if (bpf_core_field_exists(core->core_enabled) && BPF_CORE_READ(core, core_enabled))
		cpu.flags |= MACHINE_CORE_SCHED;
	rd = BPF_CORE_READ(rq, rd);
	cpu.domain = (u64)rd;
	cpu.limit = BPF_CORE_READ(rd, dl_bw.bw);
	cpu.total = BPF_CORE_READ(rd, dl_bw.total_bw);
	/* Kernels without this field reserve the bandwidth of all servers at boot. Then an attach changes nothing. */
	if (bpf_core_field_exists(rq->ext_server) && bpf_core_field_exists(rq->ext_server.dl_bw_attached)) {
		struct sched_dl_entity *fair = &rq->fair_server, *ext = &rq->ext_server;

		cpu.flags |= MACHINE_SERVERS;
		cpu.fair = BPF_CORE_READ(fair, dl_bw);
		cpu.ext = BPF_CORE_READ(ext, dl_bw);
		if (BPF_CORE_READ_BITFIELD_PROBED(fair, dl_bw_attached))
			cpu.flags |= MACHINE_FAIR_ATTACHED;
		if (BPF_CORE_READ_BITFIELD_PROBED(ext, dl_bw_attached))
			cpu.flags |= MACHINE_EXT_ATTACHED;
	}
	*args = cpu;
	return 0;
}
