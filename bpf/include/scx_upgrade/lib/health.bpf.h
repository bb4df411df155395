/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A policy's own health check. Where it finds that something is wrong with itself, it says so:
 *
 *	if (waited > LONGEST_EVER)
 *		scxu_report_unhealthy(MY_REASON);
 *
 * During probation the guard rolls it back then, and gives the reason, a number that means what the policy's documentation
 * says. After probation `scx-upgrade status` shows it, and nothing else happens.
 */
#ifndef __SCX_UPGRADE_HEALTH_BPF_H
#define __SCX_UPGRADE_HEALTH_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* @why is not 0. The last word counts. */
static __always_inline void scxu_report_unhealthy(u32 why)
{
	if (scxu_is_active())
		scxu_host.unhealthy = (u64)scxu_host.active.generation << 32 | why;
}

#endif /* __SCX_UPGRADE_HEALTH_BPF_H */
