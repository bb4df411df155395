/* SPDX-License-Identifier: GPL-2.0-only */
/* An accessor to a task's state, and the look-up in task storage that is in it, as often as asked. */
#include <scx_upgrade/records.bpf.h>

char _license[] SEC("license") = "GPL";

/* Mirrored by `Access` in src/bin/cost.rs. */
struct access_args {
	u64	times;			/* in */
	u64	sum;			/* out: so that nothing is optimised away */
};

SEC("syscall")
int access_plain(struct access_args *args)
{
	struct task_struct *p = bpf_get_current_task_btf();
	u64 sum = 0;
	u32 i;

	bpf_for(i, 0, args->times) {
		struct scxu_task_record *rec;

		rec = bpf_task_storage_get(&scxu_task_records, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (rec)
			sum += *(volatile u64 *)&rec->data[0];
	}
	args->sum = sum;
	return 0;
}

SEC("syscall")
int access_state(struct access_args *args)
{
	struct task_struct *p = bpf_get_current_task_btf();
	u64 sum = 0;
	u32 i;

	bpf_for(i, 0, args->times) {
		struct scxu_task_record *rec = scxu_task_record(p);

		if (rec)
			sum += *(volatile u64 *)&rec->data[0];
	}
	args->sum = sum;
	return 0;
}
