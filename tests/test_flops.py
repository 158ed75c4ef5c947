"""Counts of operations against the paper's table and against torch's own counter."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from ffvit.flops import count_macs, peak_flops, training_flops
from ffvit.models import FeedForwardViT

# GMAC of the author's code, as counted by hand; Mixer, DeiT and ResNet as their papers state them.
PAPERS = [
    ("ff_tiny_patch16_224", 224, 1.4416),
    ("ff_base_patch16_224", 224, 14.1324),
    ("ff_large_patch32_224", 224, 10.7130),
    ("ff_tiny_patch16_224", 128, 0.476),
    ("ff_base_patch16_224", 160, 7.246),
    ("ff_large_patch32_224", 192, 7.927),
    ("mixer_b16_224", 224, 12.6),
    ("deit_base_patch16_224", 224, 17.6),
    ("resnet50", 224, 4.1),
    ("resnet18", 224, 1.8),
]


@pytest.mark.parametrize(("name", "resolution", "expected"), PAPERS)
def test_counts_are_the_papers(name: str, resolution: int, expected: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    digits = len(str(expected).partition(".")[2])
    assert round(count_macs(model, resolution) / 1e9, digits) == pytest.approx(expected, abs=0.05)
    if name.startswith("ff_"):
        assert round(count_macs(model, resolution) / 1e9, digits) == expected
    assert training_flops(model, resolution) == 6 * count_macs(model, resolution)


def test_arithmetic_agrees_with_what_is_run_but_for_the_last_block_and_padding() -> None:
    depth, tokens, width, hidden = 3, 17, 11, 19
    model = FeedForwardViT(
        image_size=12,
        patch_size=3,
        embed_dim=width,
        depth=depth,
        num_classes=7,
        token_mlp_dim=hidden,
    )
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 3, 12, 12))
    nominal = depth * 2 * tokens * hidden * width
    # Tokens and one row for the bias, and the hidden width, are padded to 24.
    run = (depth * 24 * 24 + (depth - 1) * tokens * 24 + 24) * width
    assert count_macs(model, 12) - nominal == counter.get_total_flops() // 2 - run


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("NVIDIA A1000", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_peaks_go_by_whole_words_of_the_devices_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak
