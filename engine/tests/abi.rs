//! The Rust mirror of the ABI against the host's own BTF.

#![allow(clippy::unwrap_used)]

use std::mem::align_of;
use std::mem::offset_of;
use std::mem::size_of;

use scx_upgrade_engine::host::abi;
use scx_upgrade_engine::host::object::HOST_OBJECT;
use state_migrate::Btf;
use state_migrate::Kind;
use state_migrate::object::btf_section;

fn btf() -> Btf<'static> {
    Btf::parse(btf_section(HOST_OBJECT).unwrap()).unwrap()
}

fn offsets(btf: &Btf<'_>, name: &str) -> (u32, Vec<(String, usize)>) {
    let id = btf.find(Kind::Struct, name).unwrap_or_else(|| panic!("the host has no struct {name}"));
    let members = btf.members(id).map(|m| (m.name.to_string(), m.bit_offset as usize / 8)).collect();
    (btf.size(id).unwrap(), members)
}

/// `same!(btf, "struct scxu_step", abi::Step, offset, size, reserved, value)`
macro_rules! same {
    ($btf:expr, $c:literal, $rust:ty, $($field:ident),+) => {{
        let (size, members) = offsets($btf, $c);
        assert_eq!(size as usize, size_of::<$rust>(), "size of struct {}", $c);
        let mine = vec![$((stringify!($field).to_string(), offset_of!($rust, $field))),+];
        assert_eq!(members, mine, "members of struct {}", $c);
    }};
}

#[test]
fn the_structs_are_the_same_in_c_and_in_rust() {
    let btf = btf();
    same!(
        &btf,
        "scxu_step",
        abi::Step,
        kind,
        flags,
        from_size,
        to_size,
        from,
        to,
        count,
        from_stride,
        to_stride,
        conversion,
        value,
        pre,
        mul,
        div,
        add
    );
    same!(&btf, "scxu_plan", abi::Plan, nr_steps, nr_call_steps, caller, steps);
    same!(&btf, "scxu_exit_record", abi::ExitRecord, kind, code, reason, msg);
    same!(
        &btf,
        "scxu_host",
        abi::HostData,
        active,
        lacks,
        abi,
        prolog,
        nr_orphans,
        orphan_members,
        zero,
        handover_to,
        closed,
        restore_vtime,
        run_base,
        reserved,
        orphans,
        boot_queues,
        queues,
        cgroup_dsq_groups,
        cgroup_members,
        cgroup_lock,
        cgroup_numbers,
        orphans_served,
        unhealthy,
        nr_cpus,
        nr_llcs,
        llc_of_cpu,
        core_of_cpu,
        next_sibling,
        task_image,
        cgroup_image,
        cpu_image,
        global_image,
        callers,
        task_table,
        plans,
        exit
    );
    same!(
        &btf,
        "scxu_sweep_args",
        abi::SweepArgs,
        visited,
        applied,
        missing,
        remaining,
        sweep,
        max_records,
        has_more,
        yields
    );
    same!(&btf, "scxu_task_table_state", abi::TaskTableState, sweep, rows, untracked, detached, reserved);
    same!(&btf, "scxu_dsq_group", abi::DsqGroup, base, members, per_cgroup);
    same!(&btf, "scxu_queue_args", abi::QueueArgs, base, members, per_cgroup, existing, queued, moved);
    assert_eq!(align_of::<abi::HostData>(), 64);
}

#[test]
fn the_number_is_the_same_in_c_and_in_rust() {
    let header = include_str!("../../bpf/include/scx_upgrade/abi.h");
    let number = header.lines().find_map(|line| line.strip_prefix("#define SCX_UPGRADE_ABI\t"));
    assert_eq!(number.map(str::trim), Some(abi::ABI.to_string().as_str()));
}

#[test]
fn the_control_word_has_its_parts_where_ops_look_for_them() {
    let btf = btf();
    let id = btf.find(Kind::Struct, "scxu_active").unwrap();
    let parts: Vec<_> = btf.members(id).map(|m| (m.name, m.bit_offset, m.bitfield_size)).collect();
    assert_eq!(parts, [("slot", 0, 8), ("generation", 8, 24), ("epoch", 32, 0)]);
    assert_eq!(btf.size(id), Some(8));
}

#[test]
fn a_record_is_its_header_the_data_and_what_the_host_keeps() {
    let btf = btf();
    let records = [
        ("scxu_task_record", abi::TASK_DATA, abi::TASK_TAIL),
        ("scxu_cgroup_record", abi::CGROUP_DATA, 0),
        ("scxu_cpu_record", abi::CPU_DATA, 0),
        ("scxu_global_record", abi::GLOBAL_DATA, 0),
    ];
    for (name, data, tail) in records {
        let (size, members) = offsets(&btf, name);
        let header = state_migrate::HEADER as usize;
        assert_eq!(size as usize, header + data + tail, "struct {name}");
        assert_eq!(members.iter().find(|(m, _)| m == "data").unwrap().1, header, "struct {name}");
        assert!(data.is_power_of_two(), "the masks of scxu_store() need it");
    }
}
