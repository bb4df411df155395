/* SPDX-License-Identifier: GPL-2.0-only */
/* A queue of its own, no state: whoever swaps to it or from it has tasks to hand over. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

SCXU_POLICY_DEFINE("plain", PLAIN_OPS);
