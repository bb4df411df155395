/* SPDX-License-Identifier: GPL-2.0-only */
/* Asks for a flag that the kernel reads only when a scheduler is attached. */
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

SCXU_POLICY_DEFINE("bad_flags", PLAIN_OPS, .flags = SCX_OPS_SWITCH_PARTIAL);
