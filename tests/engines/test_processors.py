"""How many processors there are to use, in trees of control groups as the kernel lays them out."""

from __future__ import annotations

import os

import pytest

from penstock.engines import processors
from penstock.engines.processors import group_share, processors_of_rank, usable_processors
from tests.support.control_groups import Groups


@pytest.fixture
def groups(tmp_path, monkeypatch):
    return Groups(tmp_path, monkeypatch)


@pytest.fixture
def machine(monkeypatch):
    def have(count: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)

    have(8)
    return have


def limit(groups: Groups, version: str, path: str, quota: object, period: int = 100_000) -> None:
    if version == "v1":
        groups.add(f"cpu/{path}", cpu__cfs_quota_us=quota, cpu__cfs_period_us=period)
    else:
        word = "max" if quota == -1 else quota
        groups.add(path, cpu__max=f"{word} {period}")


def join(groups: Groups, version: str, path: str) -> None:
    groups.join(
        f"3:memory:/other\n2:cpu,cpuacct:{path}\n0::/\n" if version == "v1" else f"0::{path}\n"
    )


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("version", ["v1", "v2"])
class TestLimits:
    def test_a_quota_bounds_the_processors(self, groups, version):
        join(groups, version, "/job")
        limit(groups, version, "job", 300_000)
        assert usable_processors() == 3

    @pytest.mark.parametrize(
        ("quota", "period", "count"),
        [(150_000, 100_000, 2), (1_000, 100_000, 1), (50_000, 25_000, 2), (250_001, 125_000, 3)],
    )
    def test_a_part_of_a_processor_counts_as_one(self, groups, version, quota, period, count):
        join(groups, version, "/job")
        limit(groups, version, "job", quota, period)
        assert usable_processors() == count

    def test_the_tightest_group_counts(self, groups, version):
        join(groups, version, "/pod/box/job")
        limit(groups, version, "pod", 600_000)
        limit(groups, version, "pod/box", 200_000)
        limit(groups, version, "pod/box/job", -1)
        assert usable_processors() == 2

    def test_no_quota_is_no_limit(self, groups, version):
        join(groups, version, "/job")
        limit(groups, version, "job", -1)
        assert group_share() is None
        assert usable_processors() == 8

    def test_a_quota_above_the_machine_is_no_limit(self, groups, version):
        join(groups, version, "/job")
        limit(groups, version, "job", 6_400_000)
        assert usable_processors() == 8

    def test_in_a_container_the_root_is_its_own_group(self, groups, version):
        join(groups, version, "/outside/of/it")
        limit(groups, version, "", 400_000)
        assert usable_processors() == 4


@pytest.mark.parametrize("content", ["", "max", "many few", "0 100000", "100000 0", "100000"])
def test_what_the_kernel_would_not_write_is_no_limit(groups, machine, content):
    groups.join("0::/job\n")
    groups.add("job", cpu__max=content)
    assert usable_processors() == 8


def test_the_processors_that_the_process_is_bound_to_count(groups, machine):
    groups.join("0::/\n")
    machine(3)
    assert usable_processors() == 3


def test_where_no_binding_is_known_all_processors_count(groups, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_processors() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_processors() == 1


def test_without_control_groups_there_is_no_limit(machine, monkeypatch, tmp_path):
    monkeypatch.setattr("penstock.transport.groups.MEMBERSHIP", tmp_path / "nothing")
    assert usable_processors() == 8
    assert processors.group_share() is None


class TestRanks:
    @pytest.fixture(autouse=True)
    def no_limit(self, groups):
        groups.join("0::/\n")

    def test_a_process_alone_has_all_of_them(self, machine, monkeypatch):
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        assert processors_of_rank() == (8, "this process may use 8 processors")

    @pytest.mark.parametrize(("ranks", "count"), [("2", 4), ("3", 2), ("16", 1), ("1", 8)])
    def test_those_on_one_machine_divide_them(self, machine, monkeypatch, ranks, count):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert processors_of_rank()[0] == count

    @pytest.mark.parametrize("told", ["", "two", "-2", "0"])
    def test_what_is_no_number_of_them_counts_for_nothing(self, machine, monkeypatch, told):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", told)
        assert processors_of_rank()[0] == 8

    def test_a_rank_that_is_bound_to_some_has_all_of_those(self, monkeypatch):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        bound = {0: {4, 5}, os.getppid(): set(range(8))}
        monkeypatch.setattr(os, "sched_getaffinity", bound.__getitem__, raising=False)
        assert processors_of_rank() == (2, "this process may use 2 processors")

    def test_where_the_launcher_is_gone_they_are_divided(self, monkeypatch):
        def look(pid: int) -> set[int]:
            if pid:
                raise ProcessLookupError
            return set(range(8))

        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        monkeypatch.setattr(os, "sched_getaffinity", look, raising=False)
        assert processors_of_rank() == (2, "4 processes share 8 processors")
