"""A part of a run measured alone, and the profile: they end, say what was asked, write nothing."""

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import train_imagenet
from ffvit import measure, profiling
from ffvit.assembly import assemble
from ffvit.config import load_train_config
from ffvit.distributed import Ranks
from ffvit.errors import ConfigError
from ffvit.profiling import Breakdown, break_down, to_markdown, verdict, write_trace

ROOT = Path(__file__).resolve().parents[1]
RANKS = Ranks(0, 0, 1, 1, torch.device("cpu"))
STAGES = {"augment", "forward", "backward", "optimizer"}


@pytest.fixture(scope="module")
def config_path(tiny_betons, tmp_path_factory):
    path = tmp_path_factory.mktemp("measure") / "tiny.yaml"
    config = {
        "data": {"train_path": str(tiny_betons["train"]), "val_path": str(tiny_betons["val"])},
        "model": {"name": "ff_pico", "image_size": 48, "patch_size": 8, "depth": 1},
        "resolution": {"min_res": 32, "max_res": 48, "start_ramp": 1, "end_ramp": 2, "multiple": 8},
        "training": {"epochs": 4, "global_batch_size": 8, "accumulation_steps": 2},
        "validation": {"resolution": 48},
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def parts(config_path):
    made = assemble(load_train_config([f"--config={config_path}"])[0], RANKS)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(measure, "MEASURED_S", 0.05)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("mode", ["data_only", "model_only"])
def test_a_mode_prints_one_line_and_leaves_nothing(
    mode, config_path, parts, tmp_path, capsys, monkeypatch
):
    config, _ = load_train_config([f"--config={config_path}", f"--run.mode={mode}"])
    # Assembling takes seconds.
    assembled = dataclasses.replace(parts, config=config)
    monkeypatch.setattr(train_imagenet, "assemble", lambda *_: assembled)
    monkeypatch.chdir(tmp_path)
    train_imagenet.main(config, tmp_path / "run", RANKS)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{mode}: ")
    assert " images/s at 32 px (" in line
    assert " images/s at 48 px (" in line
    assert "MFU" not in line
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_mode_is_refused_by_name(config_path, tmp_path):
    options = [f"--config={config_path}", "--run.mode=data"]
    message = "run.mode=data: expected train, data_only, model_only"
    with pytest.raises(ConfigError, match=message):
        train_imagenet.main(load_train_config(options)[0], tmp_path / "run", RANKS)


def test_measuring_changes_no_weight(parts):
    before = [parameter.clone() for parameter in parts.model.parameters()]
    training = measure.Training(parts, 32)
    training.train(training.warm_up())
    for parameter, expected in zip(parts.model.parameters(), before, strict=True):
        assert (parameter == expected).all()
    assert parts.optimizer.state  # it did update


def test_measuring_ends_after_so_many_batches(parts, monkeypatch):
    monkeypatch.setattr(measure, "MEASURED_S", 15.0)
    monkeypatch.setattr(measure, "AT_MOST", 7)
    assert measure.measure_loader(parts, 32)["num_batches"] == 7
    assert measure.Training(parts, 32).warm_up() == 7


def test_stages_of_a_breakdown_add_up_to_about_an_update(parts):
    breakdown = break_down(parts, 48)
    assert set(breakdown.stages_ms) == STAGES
    assert all(value > 0 for value in breakdown.stages_ms.values())
    assert breakdown.stages_ms["forward"] < breakdown.model_ms < 20 * breakdown.together_ms
    assert 0 <= breakdown.data_wait_fraction <= 1


def test_a_trace_names_the_stages(parts, tmp_path):
    path = tmp_path / "trace.json.gz"
    write_trace(parts, 32, path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    micro_batches = profiling.TRACED_UPDATES * 2
    assert {name: names.count(name) for name in STAGES} == dict.fromkeys(STAGES, micro_batches) | {
        "optimizer": profiling.TRACED_UPDATES
    }


def breakdown(loader_ms=1.0, together_ms=12.0, **stages_ms):
    stages_ms = {"augment": 0.1, "forward": 3.0, "backward": 6.0, "optimizer": 0.5} | stages_ms
    return Breakdown(48, 8, loader_ms, None, stages_ms, together_ms, 0.25, 0.4)


def test_the_table_has_a_column_for_each_resolution_and_every_stage():
    lines = to_markdown([breakdown(), breakdown(loader_ms=2000.0)])
    assert lines[0] == "| ms per update of 8 images | 48 px | 48 px |"
    assert "| loader alone | 1.0 | 2,000.0 |" in lines
    assert "| - backward | 6.0 | 6.0 |" in lines
    assert "| images/s, loader alone | 8,000 | 4 |" in lines
    assert "| MFU, model alone | 40.0% | 40.0% |" in lines
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("measured", "bound", "advice"),
    [
        ({"loader_ms": 20.0}, "the loader bounds", "--max_side=400"),
        ({}, "most of all backward", "resolution.min_res"),
        ({"optimizer": 40.0}, "most of all optimizer", "training.global_batch_size"),
        ({"all-reduce": 2.0}, "most of all backward", "accumulation_steps"),
        ({"augment": 3.0}, "most of all backward", "`augment` in the config"),
    ],
)
def test_the_verdict_names_what_bounds_and_what_to_change(parts, measured, bound, advice):
    sentence, *lines = verdict(parts, breakdown(**measured))
    assert bound in sentence
    assert advice in " ".join(lines)


def test_a_stage_that_costs_nothing_is_not_advised_on(parts):
    text = " ".join(verdict(parts, breakdown()))
    assert "global_batch_size" not in text
    assert "`augment`" not in text


@pytest.mark.slow
def test_profile_of_two_ranks_shows_all_reduce_beside_backward(config_path, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command += ["-m", "ffvit", "profile", f"--config={config_path}", f"--out={out}"]
    done = subprocess.run(
        [*command, "--training.global_batch_size=32", "--data.num_workers=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "profile.md").read_text() in done.stdout
    assert "| - all-reduce |" in done.stdout
    events = json.loads(gzip.decompress((out / "trace.json.gz").read_bytes()))["traceEvents"]
    reductions = [e for e in events if e.get("name") == "gloo:all_reduce"]
    assert reductions
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "backward"]
    starts = [reduction["ts"] for reduction in reductions]
    assert any(begin < start < end for begin, end in spans for start in starts)
