/* SPDX-License-Identifier: GPL-2.0-only */
/* Built for a host that is not this one. */
#include <scx/common.bpf.h>
#include <scx_upgrade/abi.h>
#undef SCX_UPGRADE_ABI
#define SCX_UPGRADE_ABI 999
#include <scx_upgrade/policy.bpf.h>
#include "plain.bpf.h"

SCXU_POLICY_DEFINE("bad_abi", PLAIN_OPS);
