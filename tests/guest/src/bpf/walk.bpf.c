/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The walk over all tasks by itself: what a sweep cannot cost less than, and the same with each task's record looked
 * up. Shares the map with the host, and no code.
 */
#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>

char _license[] SEC("license") = "GPL";

extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, unsigned int flags) __ksym __weak;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym __weak;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym __weak;

struct walk_record {
	struct bpf_spin_lock lock;
	u32	stamp;
	u64	data[SCX_UPGRADE_TASK_DATA / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct walk_record);
} scxu_task_records SEC(".maps");

/* Mirrored by `sweep::walk::Args`. */
struct walk_args {
	u64	tasks;			/* out: tasks seen, idle threads left out */
	u64	records;		/* out: those with a record */
};

SEC("syscall")
int walk_bare(struct walk_args *args)
{
	struct task_struct *p;
	u64 tasks = 0;

	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		if (!(p->flags & PF_IDLE))
			tasks++;
	}
	bpf_rcu_read_unlock();
	args->tasks = tasks;
	return 0;
}

SEC("syscall")
int walk_records(struct walk_args *args)
{
	struct task_struct *p;
	u64 tasks = 0, records = 0;

	bpf_rcu_read_lock();
	bpf_for_each(task, p, NULL, BPF_TASK_ITER_ALL_THREADS) {
		struct walk_record *rec;

		if (p->flags & PF_IDLE)
			continue;
		tasks++;
		rec = bpf_task_storage_get(&scxu_task_records, p, 0, 0);
		if (rec && *(volatile u32 *)&rec->stamp)
			records++;
	}
	bpf_rcu_read_unlock();
	args->tasks = tasks;
	args->records = records;
	return 0;
}
