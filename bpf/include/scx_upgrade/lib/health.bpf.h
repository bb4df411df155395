/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A policy's own health check. A policy that detects a fault of its own reports it:
 *
 *	if (waited > LONGEST_EVER)
 *		scxu_report_unhealthy(MY_REASON);
 *
 * During probation the guard then rolls the policy back, and shows the reason: a number that the policy's documentation
 * explains. After probation `scx-upgrade status` shows the reason, and nothing else happens.
 */
#ifndef __SCX_UPGRADE_HEALTH_BPF_H
#define __SCX_UPGRADE_HEALTH_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* @why is not 0. The last report counts. */
static __always_inline void scxu_report_unhealthy(u32 why)
{
	if (scxu_is_active())
		scxu_host.unhealthy = (u64)scxu_host.active.generation << 32 | why;
}

#endif /* __SCX_UPGRADE_HEALTH_BPF_H */
