/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep with a plan in instructions: sdk/src/compiled.rs writes what state-migrate/src/compile.rs made of the plan
 * over the body of scxu_plan_task() and scxu_plan_cgroup(), and loads this for one sweep. What is not exactly one plan behind
 * it leaves, and says how many there were. First touches are the interpreter's, which is not in here: to verify it takes
 * longer than all the rest.
 */
#include <scx_upgrade/records.bpf.h>

#define SCXU_SWEEP_MIGRATE(scope, rec)	scxu_migrate_##scope##_record_by_plan(rec)

/*
 * Room for the plan: instructions that do nothing. What is written over them begins at the first and ends by jumping to
 * the last two, `r0 = 0; exit`; the verifier takes out what lies between. Of the calling convention the plan relies on
 * the record in r1.
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

/* Too few to be worth it; their programs are left out here. */
#define scxu_migrate_cpu_record_by_plan(rec)		false
#define scxu_migrate_global_record_by_plan(rec)	false

#include <scx_upgrade/sweep.bpf.h>

char _license[] SEC("license") = "GPL";

SCXU_SWEEP_PROGRAM(tasks)
SCXU_SWEEP_PROGRAM(cgroups)
