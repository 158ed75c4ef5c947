"""Accuracy and loss over batches and ranks, against counting by hand.

Dimensions: B batch, K classes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ffvit.metrics import Evaluation

CPU = torch.device("cpu")

RANK_PROGRAM = """
import json, sys, torch
from ffvit.metrics import Evaluation
rank, store, rank_counts = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=len(rank_counts)
)
generator = torch.Generator().manual_seed(3)
logits = torch.randn(sum(rank_counts), 7, generator=generator)
labels = torch.randint(7, (sum(rank_counts),), generator=generator)
evaluation = Evaluation(7, torch.device("cpu"))
start = sum(rank_counts[:rank])
own = slice(start, start + rank_counts[rank])
for batch_logits, batch_labels in zip(logits[own].split(4), labels[own].split(4)):
    evaluation.update(batch_logits, batch_labels)
print(json.dumps(evaluation.compute()))
torch.distributed.destroy_process_group()
"""


def by_hand(logits, labels, top_k):
    best = logits.argsort(dim=1, descending=True)[:, :top_k].tolist()
    return sum(label in row for row, label in zip(best, labels.tolist(), strict=True)) / len(labels)


@pytest.mark.parametrize("num_classes", [2, 3, 5, 7, 101])
def test_values_equal_counting_by_hand_over_uneven_batches(num_classes):
    logits = torch.randn(29, num_classes)
    labels = torch.randint(num_classes, (29,))
    evaluation = Evaluation(num_classes, CPU)
    for part in ((0, 11), (11, 11), (11, 24), (24, 29)):
        evaluation.update(logits[slice(*part)], labels[slice(*part)])
    got = evaluation.compute()
    log_p = logits.log_softmax(1)
    assert got == {
        "top_1": pytest.approx(by_hand(logits, labels, 1)),
        "top_5": pytest.approx(by_hand(logits, labels, min(5, num_classes))),
        "loss": pytest.approx(-sum(log_p[i, labels[i]].item() for i in range(29)) / 29),
        "num_samples": 29,
    }


def test_values_are_plain_numbers():
    evaluation = Evaluation(3, CPU)
    evaluation.update(torch.randn(5, 3), torch.randint(3, (5,)))
    assert [type(value) for value in evaluation.compute().values()] == [float, float, float, int]


def test_bf16_logits_lose_nothing_but_their_own_rounding():
    logits = torch.randn(5, 3).bfloat16()
    labels = torch.randint(3, (5,))
    evaluation, reference = Evaluation(3, CPU), Evaluation(3, CPU)
    evaluation.update(logits, labels)
    reference.update(logits.float(), labels)
    assert evaluation.compute() == reference.compute()


def test_a_loss_that_is_not_a_number_stays_visible():
    evaluation = Evaluation(3, CPU)
    evaluation.update(torch.full((2, 3), torch.nan), torch.tensor([0, 1]))
    evaluation.update(torch.randn(5, 3), torch.randint(3, (5,)))
    assert evaluation.compute()["loss"] != evaluation.compute()["loss"]


def test_update_never_reads_a_value_on_the_host():
    """Reading a value of a meta tensor raises, as there is none."""
    meta = torch.device("meta")
    evaluation = Evaluation(7, meta)
    evaluation.update(torch.randn(11, 7, device=meta), torch.zeros(11, dtype=int, device=meta))


@pytest.mark.gpu
def test_update_on_a_gpu_does_not_wait_for_it():
    device = torch.device("cuda")
    evaluation = Evaluation(7, device)
    logits = torch.randn(11, 7, device=device)
    labels = torch.randint(7, (11,), device=device)
    evaluation.update(logits, labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        evaluation.update(logits, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert evaluation.compute()["num_samples"] == 22


def test_an_evaluation_without_images_is_an_error():
    with pytest.raises(ValueError, match="without images"):
        Evaluation(3, CPU).compute()


@pytest.mark.parametrize("rank_counts", [[13, 6], [0, 9]])
@pytest.mark.slow
def test_two_processes_with_uneven_shares_get_the_values_of_one(rank_counts, tmp_path):
    total = sum(rank_counts)
    command = [sys.executable, "-W", "error", "-c", RANK_PROGRAM]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), json.dumps(rank_counts)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    first, second = (json.loads(output.splitlines()[-1]) for output in outputs)

    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(total, 7, generator=generator)
    labels = torch.randint(7, (total,), generator=generator)
    single = Evaluation(7, CPU)
    single.update(logits, labels)
    assert first == second == pytest.approx(single.compute(), rel=1e-6)
