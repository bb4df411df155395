/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A policy's own health check. Where it finds that something is wrong with itself, it says so:
 *
 *	if (waited > LONGEST_EVER)
 *		policy_is_unhealthy(MY_REASON);
 *
 * During probation the guard rolls it back then, and gives the reason, a number that means what the policy's documentation
 * says. After probation `scx-upgrade status` shows it, and nothing else happens.
 */
#ifndef __SCX_UPGRADE_HEALTH_BPF_H
#define __SCX_UPGRADE_HEALTH_BPF_H

#include <scx_upgrade/policy.bpf.h>

/* @why is not 0. The last word counts. */
static __always_inline void policy_is_unhealthy(u32 why)
{
	if (policy_is_active())
		scx_host.unhealthy = (u64)scx_host.active.generation << 32 | why;
}

#endif /* __SCX_UPGRADE_HEALTH_BPF_H */
