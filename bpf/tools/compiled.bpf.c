/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep with the plan as instructions. state-migrate/src/compile.rs makes them from the plan, and engine/src/host/compiled_sweep.rs
 * writes them over the body of scxu_plan_task() and scxu_plan_cgroup(), and loads this for one sweep. It migrates records
 * that are exactly one plan behind, and counts the others as remaining. It has no interpreter, which would take the verifier
 * longer than all the rest; first accesses use the interpreter of the policy or the host.
 */
#include <scx_upgrade/records.bpf.h>

#define SCXU_SWEEP_MIGRATE(scope, rec)	scxu_migrate_##scope##_record_by_plan(rec)

/*
 * Room for the plan: instructions that do nothing. The plan's instructions start at the first of them, and end with a jump to
 * the last two instructions of the function, `r0 = 0; exit`. The verifier removes what lies between. The plan expects the
 * record in r1.
 */
#define SCXU_PLAN_ROOM	2048

#define SCXU_DEFINE_BY_PLAN(scope)									\
static __noinline int scxu_plan_##scope(struct scxu_##scope##_record *rec)				\
{													\
	register void *r1 asm("r1") = rec;								\
													\
	asm volatile(".rept %[room]; goto +0; .endr"							\
		     : : "r"(r1), [room] "i"(SCXU_PLAN_ROOM)						\
		     : "r0", "r2", "r3", "r4", "r5", "memory");						\
	return 0;											\
}													\
													\
static __always_inline bool scxu_migrate_##scope##_record_by_plan(struct scxu_##scope##_record *rec)	\
{													\
	bool done = false;										\
	u32 epoch;											\
													\
	bpf_spin_lock(&rec->lock);									\
	epoch = scxu_host.active.epoch;									\
	if (rec->record_epoch && rec->record_epoch == epoch - 1) {					\
		scxu_plan_##scope(rec);									\
		rec->record_epoch = epoch;								\
		done = true;										\
	}												\
	bpf_spin_unlock(&rec->lock);									\
	return done || !scxu_is_stale(rec);								\
}

SCXU_DEFINE_BY_PLAN(task)
SCXU_DEFINE_BY_PLAN(cgroup)

/* There are few of these, so their programs are left out. */
#define scxu_migrate_cpu_record_by_plan(rec)		false
#define scxu_migrate_global_record_by_plan(rec)	false

#include <scx_upgrade/sweep.bpf.h>

char _license[] SEC("license") = "GPL";

SCXU_SWEEP_PROGRAM(tasks)
SCXU_SWEEP_PROGRAM(cgroups)
