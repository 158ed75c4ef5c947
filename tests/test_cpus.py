"""CPU cores: what control groups grant, on trees of files like those of /proc and /sys."""

import os

import pytest

from ffvit.cpus import available_cpus

NUM_BOUND = 8


@pytest.fixture(autouse=True)
def bound_to_eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(NUM_BOUND)))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, NUM_BOUND),
        ("0::/\n", {"cpu.max": "max 100000"}, NUM_BOUND),
        ("0::/\n", {"cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000"}, NUM_BOUND),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000"}, 2),
        (
            "5:memory:/x\n4:cpu,cpuacct:/x\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "500000", "cpu/x/cpu.cfs_period_us": "100000"},
            5,
        ),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            NUM_BOUND,
        ),
    ],
)
def test_cores_are_those_of_the_tightest_limit(tmp_path, groups, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert available_cpus(tmp_path) == expected


def test_a_system_without_control_groups_has_its_bound_cores(tmp_path):
    assert available_cpus(tmp_path) == NUM_BOUND


def test_this_system_is_read():
    assert 1 <= available_cpus() <= NUM_BOUND
