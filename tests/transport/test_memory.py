"""What is read of the machine's memory, in trees of control groups as the kernel lays them out."""

from __future__ import annotations

import psutil
import pytest

from penstock.transport import memory
from tests.support.control_groups import Groups

GIB = 1 << 30
# What a v1 group has as its limit that has none.
V1_UNLIMITED = (1 << 63) - 4096
V1_MEMBERSHIP = "9:name=systemd:/\n4:cpu,cpuacct:/other\n3:memory:{}\n0::/\n"
V2_MEMBERSHIP = "0::{}\n"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    groups = Groups(tmp_path, monkeypatch)
    monkeypatch.setattr(memory, "_MACHINES_EVENTS", groups.vmstat)
    return groups


def join_and_limit(groups: Groups, version: str, limit: object, usage: int) -> None:
    if version == "v1":
        groups.join(V1_MEMBERSHIP.format("/job"))
        groups.v1("job", limit, usage)
    else:
        groups.join(V2_MEMBERSHIP.format("/job"))
        groups.v2("job", limit, usage)


versions = pytest.mark.parametrize("version", ["v1", "v2"])


@versions
def test_a_groups_limit_is_read_with_what_counts_against_it(groups, version):
    join_and_limit(groups, version, 8 * GIB, 3 * GIB)
    assert memory.group_level() == (3 * GIB, 8 * GIB)
    assert memory.memory_level() == (3 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("version", "path", "prefix"), [("v1", "memory/job", "total_"), ("v2", "job", "")]
)
def test_files_that_were_read_and_stay_cached_are_not_used_memory(groups, version, path, prefix):
    join_and_limit(groups, version, 8 * GIB, 8 * GIB)
    own = "" if prefix == "" else "inactive_file 1\nactive_file 1\n"
    groups.add(
        path,
        memory__stat=f"cache {7 * GIB}\n{own}"
        f"{prefix}inactive_file {4 * GIB}\n{prefix}active_file {2 * GIB}\n{prefix}mapped_file 9",
    )
    assert memory.group_level() == (2 * GIB, 8 * GIB)


@pytest.mark.parametrize(("version", "limit"), [("v1", V1_UNLIMITED), ("v2", "max")])
def test_a_group_without_a_limit_is_none_and_the_machine_counts(groups, version, limit):
    join_and_limit(groups, version, limit, 3 * GIB)
    assert memory.group_level() is None
    used, total = memory.memory_level()
    assert total == psutil.virtual_memory().total
    assert 0 < used < total


def test_of_nested_groups_that_with_the_least_left_counts_and_not_the_lowest_limit(groups):
    groups.join(V2_MEMBERSHIP.format("/slice/pod/box"))
    groups.v2("slice", 20 * GIB, 19 * GIB)
    groups.v2("slice/pod", 8 * GIB, 3 * GIB)
    groups.v2("slice/pod/box", "max", 3 * GIB)
    assert memory.group_level() == (19 * GIB, 20 * GIB)


def test_a_limit_of_the_root_counts_as_well(groups):
    groups.join(V2_MEMBERSHIP.format("/box"))
    groups.v2("", 2 * GIB, GIB)
    groups.v2("box", 8 * GIB, GIB)
    assert memory.group_level() == (GIB, 2 * GIB)


def test_the_group_beside_this_processs_own_does_not_count(groups):
    groups.join(V2_MEMBERSHIP.format("/mine"))
    groups.v2("mine", 8 * GIB, GIB)
    groups.v2("theirs", 2 * GIB, 2 * GIB)
    assert memory.group_level() == (GIB, 8 * GIB)


@pytest.mark.parametrize("path", ["/docker/4711", "/../../host.slice/4711"])
def test_where_the_path_is_that_outside_of_the_container_its_root_counts(groups, path):
    groups.join(V2_MEMBERSHIP.format(path))
    groups.v2("", 4 * GIB, GIB)
    assert memory.group_level() == (GIB, 4 * GIB)


def test_of_both_versions_at_once_that_with_the_memory_controller_counts(groups):
    groups.join(V1_MEMBERSHIP.format("/box"))
    groups.add("unrelated")
    groups.v1("box", 4 * GIB, GIB)
    assert memory.group_level() == (GIB, 4 * GIB)


@pytest.mark.parametrize("membership", [None, "", "nonsense\n", "5:cpuset:/box\n"])
def test_without_a_group_for_memory_there_is_no_limit(groups, membership):
    groups.v2("box", GIB, GIB)
    groups.v1("box", GIB, GIB)
    if membership is not None:
        groups.join(membership)
    assert memory.group_level() is None


def test_a_group_that_does_not_say_its_usage_is_passed_over(groups):
    groups.join(V2_MEMBERSHIP.format("/pod/box"))
    groups.v2("pod", 4 * GIB, GIB)
    groups.add("pod/box", memory__max=GIB)
    assert memory.group_level() == (GIB, 4 * GIB)


# What is left.


def test_what_is_available_is_what_the_group_leaves(groups):
    join_and_limit(groups, "v2", 100 << 20, 40 << 20)
    assert memory.available_bytes() == 60 << 20


def test_a_group_that_is_over_its_limit_leaves_nothing(groups):
    join_and_limit(groups, "v2", 100 << 20, 101 << 20)
    assert memory.available_bytes() == 0


def test_no_more_is_available_than_the_machine_has_whatever_the_group_allows(groups):
    join_and_limit(groups, "v2", 1 << 50, 0)
    assert memory.available_bytes() <= psutil.virtual_memory().total


# Kills.


def test_kills_are_counted_in_the_group_in_those_above_and_on_the_machine(groups):
    groups.join(V2_MEMBERSHIP.format("/pod/box"))
    groups.v2("pod", "max", 0, kills=3)
    groups.v2("pod/box", "max", 0, kills=1)
    groups.vmstat.write_text("oom_kill 6\n")
    assert memory.out_of_memory_kills() == {
        groups.root / "pod/box/memory.events": 1,
        groups.root / "pod/memory.events": 3,
        groups.vmstat: 6,
    }


def test_kills_are_counted_in_a_v1_group(groups):
    groups.join(V1_MEMBERSHIP.format("/box"))
    groups.v1("box", V1_UNLIMITED, 0, kills=7)
    assert list(memory.out_of_memory_kills().values()) == [7]


def test_kills_of_the_machine_are_counted_where_there_is_no_group(groups):
    groups.vmstat.write_text("nr_free_pages 100\noom_kill 6\noom_kill_else 9\n")
    assert memory.out_of_memory_kills() == {groups.vmstat: 6}


@pytest.mark.parametrize("events", ["", "oom 3\n", "oom_kill\n", "oom_kill many\n"])
def test_where_nothing_counts_kills_their_number_is_not_known(groups, events):
    groups.join(V2_MEMBERSHIP.format("/box"))
    groups.add("box", memory__events=events)
    assert memory.out_of_memory_kills() == {}
    assert memory.RecentKills().take() == 0


def test_a_kill_that_several_have_counted_is_one(groups):
    groups.join(V2_MEMBERSHIP.format("/pod/box"))
    counts = {"pod": 3, "pod/box": 1, "": 9}

    def kill(processes: int = 1) -> None:
        for path in counts:
            counts[path] += processes
            groups.v2(path, "max", 0, kills=counts[path])
        groups.vmstat.write_text(f"oom_kill {counts['']}\n")

    kill(0)
    recent = memory.RecentKills()
    kill()
    assert recent.take() == 1
    # Two workers that were killed together are heard of one after another.
    kill(2)
    assert [recent.take() for _ in range(3)] == [2, 1, 0]


def test_a_kill_that_only_one_has_counted_counts(groups):
    groups.join(V1_MEMBERSHIP.format("/box"))
    groups.v1("box", V1_UNLIMITED, 0, kills=7)
    groups.vmstat.write_text("oom_kill 7\n")
    recent = memory.RecentKills()
    groups.vmstat.write_text("oom_kill 8\n")
    assert recent.take() == 1


def test_a_count_that_was_not_there_before_says_nothing(groups):
    recent = memory.RecentKills()
    groups.vmstat.write_text("oom_kill 700\n")
    assert recent.take() == 0
    groups.vmstat.unlink()
    assert recent.take() == 0


def test_a_kill_is_recent_until_the_second_look_that_has_found_all_alive(groups):
    groups.vmstat.write_text("oom_kill 6\n")
    recent = memory.RecentKills()
    groups.vmstat.write_text("oom_kill 7\n")
    recent.look()
    assert recent.take() == 1
    groups.vmstat.write_text("oom_kill 8\n")
    recent.look()
    recent.look()
    assert recent.take() == 0


def test_this_machine_can_be_read():
    assert 0 < memory.available_bytes() <= psutil.virtual_memory().total
    used, limit = memory.memory_level()
    assert 0 < used <= limit
