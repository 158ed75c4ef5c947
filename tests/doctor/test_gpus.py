"""GPUs that torch sees or not: with a stand-in for torch and for the driver's program."""

import sys
from types import SimpleNamespace

import pytest

from ffvit.doctor import gpus

GIB = 1 << 30


class Tensor:
    """Multiplies into what the test says; compares with anything."""

    def __init__(self, outcome):
        self.outcome = outcome

    def __matmul__(self, other):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self

    def __eq__(self, other):
        return SimpleNamespace(all=lambda: self.outcome)

    __hash__ = None


def fake_torch(count=1, cuda="12.8", init=None, major=9, free=79, outcome=True):
    def initialise():
        if init:
            raise RuntimeError(init)

    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda),
        ones=lambda *_, **__: Tensor(outcome),
        cuda=SimpleNamespace(
            is_available=lambda: count > 0,
            device_count=lambda: count,
            init=initialise,
            get_arch_list=lambda: ["sm_80", "sm_90"],
            mem_get_info=lambda _: (free * GIB, 80 * GIB),
            get_device_properties=lambda _: SimpleNamespace(name="GPU", major=major, minor=0),
        ),
    )


DRIVER = "driver 550.1 with 1 x GPU"


def look(monkeypatch, tmp_path, torch, driver=DRIVER, num_files=1):
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(gpus, "_driver", lambda: driver)
    (tmp_path / "dev").mkdir(exist_ok=True)
    for index in range(num_files):
        (tmp_path / f"dev/nvidia{index}").touch()
    return list(gpus.gpus(str(tmp_path)))


def test_a_machine_without_gpus_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = look(monkeypatch, tmp_path, None, "", 0)
    assert finding.level == "ok"
    assert "CPU" in finding.text


@pytest.mark.parametrize(
    ("torch", "driver", "words", "mend"),
    [
        (fake_torch(0, cuda=None), DRIVER, "built for CPUs only", "--force-reinstall torch"),
        (fake_torch(0, init="driver too old"), DRIVER, "driver too old", "update the driver"),
        (fake_torch(0), "", "does not answer", "nvidia-smi"),
    ],
)
def test_gpus_that_torch_cannot_use_are_an_error(monkeypatch, tmp_path, torch, driver, words, mend):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (finding,) = look(monkeypatch, tmp_path, torch, driver)
    assert finding.level == "error"
    assert words in finding.text
    assert mend in finding.mend


def test_gpus_hidden_by_the_environment_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = look(monkeypatch, tmp_path, fake_torch(0))
    assert (finding.level, finding.mend) == ("error", "unset CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    findings = look(monkeypatch, tmp_path, fake_torch(1), num_files=4)
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert "3 more hidden" in findings[0].text


@pytest.mark.parametrize(
    ("options", "level", "words"),
    [
        ({}, "ok", "80 GiB, compute capability 9.0"),
        ({"free": 20}, "warning", "60 GiB are in use"),
        ({"major": 7}, "warning", "no bf16"),
        ({"outcome": RuntimeError("no kernel image")}, "error", "torch is for sm_80, sm_90"),
        ({"outcome": False}, "error", "wrongly"),
    ],
)
def test_each_gpu_is_asked_to_compute(monkeypatch, tmp_path, options, level, words):
    _, finding = look(monkeypatch, tmp_path, fake_torch(**options))
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.mend) == (level != "ok")


def test_nccl_is_asked_to_add_up_between_gpus(monkeypatch):
    torch = fake_torch(2)
    torch.distributed = SimpleNamespace(is_nccl_available=lambda: True)
    calls = []
    torch.cuda.nccl = SimpleNamespace(version=lambda: (2, 27, 3), all_reduce=calls.append)
    torch.cuda.can_device_access_peer = lambda *_: True
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(gpus, "has_gpus", lambda: True)
    (finding,) = gpus.nccl()
    assert (finding.level, len(calls[0])) == ("ok", 2)
    assert "2.27.3" in finding.text
    torch.ones = lambda *_, **__: Tensor(False)
    (finding,) = gpus.nccl()
    assert finding.level == "error"
