"""The benchmark of training steps: what is compared is the same, and the page is its result's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.step import tables
from benchmarks.step.cases import CASES, END_TO_END
from benchmarks.step.definition import PlainFeedForwardViT
from benchmarks.step.loading import LOADERS
from benchmarks.step.loops import DEFINITIONS, LOOPS, Repeated, Setting
from benchmarks.step.measure import interleaved, measure_case
from benchmarks.tables import fill_page, newest_result
from ffvit.models import FeedForwardViT

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "imagenet_sample.tar"
CPU = torch.device("cpu")


@pytest.mark.parametrize("stored_grid", [4, 8])
def test_the_definition_is_the_function_of_our_models_and_loads_their_weights(
    stored_grid: int,
) -> None:
    torch.manual_seed(0)
    ours = FeedForwardViT(
        image_size=12,
        patch_size=3,
        embed_dim=11,
        depth=3,
        num_classes=7,
        pos_grid_size=stored_grid,
    ).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    plain = PlainFeedForwardViT(12, 3, 11, 3, stored_grid, num_classes=7).double()
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(plain(images), ours(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("ff_pico", "ffvit"),
        ("ff_pico", "bare"),
        ("ff_pico", "definition"),
        ("deit_tiny_patch16_224", "timm"),
        ("resnet18_blurpool", "ffcv-imagenet"),
    ],
)
def test_every_loop_trains(name: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFINITIONS, "ff_pico", (8, 16, 2, 4))
    networks: list[torch.nn.Module] = []
    register = torch.nn.Module.train
    monkeypatch.setattr(
        torch.nn.Module, "train", lambda m, mode=True: (networks.append(m), register(m, mode))[1]
    )
    batches = Repeated(2, 32, CPU)
    batches.num_batches = 2
    torch.manual_seed(0)
    loop = LOOPS[program](Setting(name, batches.resolution, 2, CPU, is_compiled=False))
    loop(batches)
    network = max(networks, key=lambda m: sum(p.numel() for p in m.parameters()))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loop(batches)
    moved = [not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True)]
    assert sum(moved) >= len(moved) - 1


def test_a_program_that_fails_is_named_and_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setitem(LOOPS, "definition", broken)
    monkeypatch.setitem(LOOPS, "ffvit", lambda _: list)
    case = next(case for case in CASES if case.model.startswith("ff_base"))
    result = measure_case(case, CPU, num_rounds=2, deadline=float("inf"))
    assert result["not_measured"] == {"definition": "RuntimeError: out of memory"}
    assert {name: len(rates) for name, rates in result["images_per_s"].items()} == {"ffvit": 2}
    late = measure_case(case, CPU, num_rounds=2, deadline=0.0)
    assert set(late["not_measured"].values()) == {"out of time"}


def test_every_second_round_runs_backwards() -> None:
    assert list(interleaved("abc", 3)) == list("abccbaabc")


def test_all_programs_exist() -> None:
    for case in (*CASES, *END_TO_END):
        for name in (*case.programs, *case.cpu_programs):
            assert name.partition(", ")[0] in LOOPS
    for case in END_TO_END:
        assert {name.partition(", ")[0] for name in case.programs} <= LOADERS.keys()


@pytest.mark.parametrize(("seconds", "verdict"), [(0.94, "ok"), (0.96, "missed")])
def test_the_median_decides_whether_a_goal_is_reached(seconds: float, verdict: str) -> None:
    times = {
        "ffvit, 224 px": [0.1, seconds, 9.0],
        "definition, 224 px": [1.0, 1.0, 1.0],
        "ffvit, 128 px": [0.01, 0.1, 0.1],
    }
    passes = {"batch_size": 2, "seconds": times}
    table = tables.targets_table({"passes": passes, "model_only": []}).splitlines()
    assert table[2].endswith(f"n=3 | {verdict} |")
    assert len(table) == 4


def test_the_page_is_made_from_the_newest_result() -> None:
    page = tables.PAGE.read_text()
    assert fill_page(page, tables.all_tables(newest_result(tables.SUBJECT))) == page


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_run_measures_all_it_can(tmp_path: Path) -> None:
    if not SAMPLE.exists():
        pytest.skip("needs ../shared/data")
    output = tmp_path / "quick.json"
    command = [sys.executable, "-m", "benchmarks.step", "--quick", f"--output={output}"]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    for case in (*result["model_only"], *result["end_to_end"]):
        assert case["not_measured"] == {}
    assert result["end_to_end"]
    assert "| ff_tiny | 224 |" in run.stdout
