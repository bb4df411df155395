/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An independent look at the host's task records: it shares the map and the sizes in abi.h with the host, and no code.
 * It never creates a record and never writes to one.
 */
#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>

char _license[] SEC("license") = "GPL";

#define READER_ON_CPU	(1 << 0)
#define READER_ON_RQ	(1 << 1)
#define READER_IDLE	(1 << 2)	/* an idle thread */
#define READER_EXITING	(1 << 3)
#define READER_NEW	(1 << 4)	/* forked, not yet woken for the first time */
#define READER_RECORD	(1 << 5)	/* it has a record */
#define READER_MOVED	(1 << 6)	/* it ran or was woken while it was read */

#define READER_TASK_NEW	0x800		/* TASK_NEW, include/linux/sched.h */

#define READER_FAIR	0
#define READER_EXT	1
#define READER_OTHER	2

/* Mirrored by `reader::Entry`. */
struct reader_entry {
	u64	start_time;		/* ns since boot; with pid the task's identity */
	u64	nvcsw;			/* switches away from it, of its own will */
	u64	nivcsw;			/* and not */
	u64	ran_ns;			/* on the CPU, in all */
	u64	dsq_vtime;		/* p->scx.dsq_vtime */
	u32	pid;
	u32	tgid;
	u32	flags;			/* READER_* */
	u32	class;
	u32	stamp;
	u32	reserved;
	char	comm[16];
	u64	data[SCX_UPGRADE_TASK_DATA / 8];
};

struct reader_record {
	struct bpf_spin_lock lock;
	u32	stamp;
	u64	data[SCX_UPGRADE_TASK_DATA / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct reader_record);
} scxu_task_records SEC(".maps");

/* A field whose width differs between kernels: an int up to v6.18, a byte since. */
#define read_small(p, field)							\
({										\
	u64 v = 0;								\
										\
	bpf_probe_read_kernel(&v, bpf_core_field_size((p)->field),		\
			      (void *)(p) + bpf_core_field_offset((p)->field));	\
	v;									\
})

extern const void fair_sched_class __ksym;
extern const void ext_sched_class __ksym;

static __always_inline u32 class_of(struct task_struct *p)
{
	u64 class = (u64)p->sched_class;

	if (class == (u64)&ext_sched_class)
		return READER_EXT;
	return class == (u64)&fair_sched_class ? READER_FAIR : READER_OTHER;
}

/* Its fields have other sizes on other kernels: only plain accesses are mended for that at load time. */
static __always_inline u32 activity(struct task_struct *p)
{
	u32 flags = 0;

	if (read_small(p, on_rq))
		flags |= READER_ON_RQ;
	if (read_small(p, on_cpu))
		flags |= READER_ON_CPU;
	return flags;
}

/*
 * One entry per task. Words are copied one by one, so none is torn. What says whether the task ran is read before the
 * record and again behind it: if nothing changed, no op wrote the record meanwhile (one that runs for a task does so
 * between its being put on a queue and its being switched away from).
 */
SEC("iter/task")
int reader_records(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct reader_entry e = {};
	struct reader_record *rec;
	int i;

	if (!p)
		return 0;
	e.nvcsw = p->nvcsw;
	e.nivcsw = p->nivcsw;
	e.ran_ns = p->se.sum_exec_runtime;
	e.dsq_vtime = p->scx.dsq_vtime;
	e.flags = activity(p);
	barrier();

	rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);
	if (rec) {
		e.flags |= READER_RECORD;
		e.stamp = *(volatile u32 *)&rec->stamp;
		_Pragma("unroll")
		for (i = 0; i < SCX_UPGRADE_TASK_DATA / 8; i++)
			e.data[i] = *(volatile u64 *)&rec->data[i];
	}

	barrier();
	if (e.nvcsw != p->nvcsw || e.nivcsw != p->nivcsw ||
	    activity(p) != (e.flags & (READER_ON_CPU | READER_ON_RQ)))
		e.flags |= READER_MOVED;
	if (p->flags & PF_IDLE)
		e.flags |= READER_IDLE;
	if (p->flags & PF_EXITING)
		e.flags |= READER_EXITING;
	if (p->__state & READER_TASK_NEW)
		e.flags |= READER_NEW;
	e.pid = p->pid;
	e.tgid = p->tgid;
	e.start_time = p->start_boottime;
	e.class = class_of(p);
	bpf_probe_read_kernel(e.comm, sizeof(e.comm), p->comm);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

/* One byte for each task, its class; nothing for idle threads. */
SEC("iter/task")
int reader_census(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	u8 class;

	if (!p || p->flags & PF_IDLE)
		return 0;
	class = class_of(p);
	bpf_seq_write(ctx->meta->seq, &class, sizeof(class));
	return 0;
}
