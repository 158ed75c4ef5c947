"""What a process may use: on trees of files like those of /proc, /sys and /dev."""

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffvit.doctor import machine

GIB = 1 << 30


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("bound", "quota", "gpus", "level", "words"),
    [
        (16, "max 100000", 0, "ok", "16 of 16"),
        (16, "max 100000", 4, "ok", "16 of 16"),
        (16, "max 100000", 8, "warning", "few for 8 GPUs"),
        (8, "max 100000", 2, "ok", "bound to 8"),
        (1, "max 100000", 0, "warning", "bound to 1"),
        (16, "200000 100000", 1, "warning", "quota is 2"),
    ],
)
def test_cores_are_compared_with_affinity_quota_and_gpus(
    tmp_path, monkeypatch, bound, quota, gpus, level, words
):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)))
    write(tmp_path, proc__self__cgroup="0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(quota)
    (tmp_path / "dev").mkdir()
    for name in [*range(gpus), "ctl", "-uvm"]:
        (tmp_path / f"dev/nvidia{name}").touch()
    (finding,) = machine.cores(str(tmp_path))
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.mend) == (level != "ok")


MEMINFO = f"MemTotal: {64 << 20} kB\nMemFree: {1 << 20} kB\nMemAvailable: {40 << 20} kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (40, 64)),
        ({"memory.max": "max"}, (40, 64)),
        ({"memory.max": f"{10 * GIB}", "memory.current": f"{8 * GIB}"}, (2, 10)),
        (
            {
                "memory.max": f"{10 * GIB}",
                "memory.current": f"{8 * GIB}",
                "memory.stat": f"anon 5\nfile {5 * GIB}\n",
            },
            (7, 10),
        ),
        ({"memory.max": f"{60 * GIB}", "memory.current": "0"}, (40, 60)),
        ({"memory.max": f"{100 * GIB}", "memory.current": "0"}, (40, 64)),
    ],
)
def test_memory_is_that_of_the_tightest_limit(tmp_path, files, expected):
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    free, total = machine.memory_limit(str(tmp_path))
    assert (free / GIB, total / GIB) == expected


def statvfs(free, size, files=1 << 20):
    return lambda _: SimpleNamespace(
        f_frsize=4096, f_bavail=free // 4096, f_blocks=size // 4096, f_files=files, f_favail=files
    )


@pytest.mark.parametrize(
    ("size", "gpus", "level"), [(GIB // 16, 1, "ok"), (GIB // 16, 2, "error"), (8 * GIB, 8, "ok")]
)
def test_small_shared_memory_is_an_error_where_nccl_needs_it(
    tmp_path, monkeypatch, size, gpus, level
):
    (tmp_path / "dev").mkdir()
    for name in range(gpus):
        (tmp_path / f"dev/nvidia{name}").touch()
    monkeypatch.setattr(os, "statvfs", statvfs(size, size))
    (finding,) = machine.shared_memory("/dev/shm", str(tmp_path))
    assert finding.level == level
    assert ("--shm-size" in finding.mend) == (level == "error")


def test_a_full_disk_and_one_without_room_for_files_are_warnings(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", statvfs(100 * GIB, 200 * GIB))
    assert [finding.level for finding in machine.disk(str(tmp_path))] == ["ok"]
    monkeypatch.setattr(os, "statvfs", statvfs(5 * GIB, 200 * GIB))
    assert [finding.level for finding in machine.disk(str(tmp_path))] == ["warning"]
    monkeypatch.setattr(os, "statvfs", statvfs(100 * GIB, 200 * GIB, files=7))
    (finding,) = machine.disk(str(tmp_path))
    assert finding.level == "warning"
    assert "7 files" in finding.text


def test_limits_of_the_shell_are_named_with_the_command_that_lifts_them(monkeypatch):
    limits = {resource.RLIMIT_NOFILE: (256, 8192), resource.RLIMIT_AS: (GIB, GIB)}
    endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits.get(kind, endless))
    findings = list(machine.limits())
    assert [finding.level for finding in findings] == ["warning", "error"]
    assert [finding.mend for finding in findings] == ["ulimit -n 4096", "ulimit -v unlimited"]
    limits.clear()
    limits[resource.RLIMIT_NOFILE] = (4096, 8192)
    assert [finding.level for finding in machine.limits()] == ["ok"]
