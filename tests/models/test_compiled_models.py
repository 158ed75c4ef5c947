"""torch.compile and DDP over changing resolutions: one graph per resolution, no graph break."""

import pathlib
from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from ffvit.models import FeedForwardViT, set_resolution

SMALL = {"image_size": 12, "patch_size": 3, "embed_dim": 11, "depth": 1, "num_classes": 7}
SIDES = [6, 12, 15, 6, 15, 12]  # 12 is the canonical one


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def single_process_group(tmp_path: pathlib.Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def train(model: nn.Module, side: int) -> torch.Tensor:
    model.zero_grad()
    logits = model(torch.randn(2, 3, side, side))
    logits.square().mean().backward()
    return logits


def check_graphs(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Train and evaluate at each resolution twice; count graphs and graph breaks."""
    torch.manual_seed(0)
    backend = CompileCounterWithBackend("eager")
    plain = FeedForwardViT(**SMALL, drop_rate=0.1, drop_path_rate=0.1)
    model = wrap(torch.compile(plain, backend=backend, dynamic=False, fullgraph=True))
    for side in SIDES:
        set_resolution(model, side)
        assert train(model, side).isfinite().all()
        assert all(parameter.grad is not None for parameter in plain.parameters())
    assert backend.frame_count == 3

    model.eval()
    for side in SIDES:
        set_resolution(model, side)
        images = torch.randn(2, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(model(images), plain(images))
    assert backend.frame_count == 6
    assert not counters["graph_break"]


def test_one_graph_per_resolution_in_training_and_in_evaluation() -> None:
    check_graphs(lambda compiled: compiled)


@pytest.mark.usefixtures("single_process_group")
def test_one_graph_per_resolution_under_ddp() -> None:
    check_graphs(DistributedDataParallel)


def test_gradients_of_compiled_and_eager_models_agree() -> None:
    torch.manual_seed(1)
    model = FeedForwardViT(**SMALL).double()
    compiled = torch.compile(model, backend="aot_eager", dynamic=False, fullgraph=True)
    set_resolution(model, 15)
    images = torch.randn(2, 3, 15, 15, dtype=torch.float64)
    gradients = []
    for runner in (model, compiled):
        model.zero_grad()
        runner(images).square().sum().backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-9, atol=1e-12)


def test_a_resolution_that_was_not_announced_still_makes_one_graph() -> None:
    backend = CompileCounterWithBackend("eager")
    model = FeedForwardViT(**SMALL)
    compiled = torch.compile(model, backend=backend, dynamic=False, fullgraph=True)
    for side in (6, 15, 6):
        train(compiled, side)
    assert backend.frame_count == 2


def test_announced_resolutions_make_one_graph_each_with_default_dynamic_shapes() -> None:
    backend = CompileCounterWithBackend("eager")
    compiled = torch.compile(FeedForwardViT(**SMALL), backend=backend, fullgraph=True)
    for side in (6, 15, 6):
        set_resolution(compiled, side)
        train(compiled, side)
    assert backend.frame_count == 2


@pytest.mark.usefixtures("single_process_group")
def test_ddp_trains_over_changing_resolutions_with_one_optimizer() -> None:
    torch.manual_seed(2)
    model = DistributedDataParallel(FeedForwardViT(**SMALL))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    images = torch.randn(5, 3, 12, 12)
    labels = torch.arange(5)
    losses = []
    for step in range(30):
        side = (6, 12, 15)[step % 3]
        set_resolution(model, side)
        resized = nn.functional.interpolate(images, (side, side), mode="area")
        loss = nn.functional.cross_entropy(model(resized), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


class _Order:
    """Notes in which order buckets of gradients and a parameter's gradient come."""

    def __init__(self, model: DistributedDataParallel, last: nn.Parameter) -> None:
        self.seen: list[str] = []
        model.register_comm_hook(None, self._reduce)
        last.register_post_accumulate_grad_hook(lambda _: self.seen.append("last gradient"))

    def _reduce(
        self, _: None, bucket: torch.distributed.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        self.seen.append("bucket")
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future


@pytest.mark.usefixtures("single_process_group")
def test_a_compiled_model_of_several_buckets_adds_up_gradients_during_its_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch compiles it in parts, as one graph's gradients would all come at its end."""
    monkeypatch.setattr(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 2000)
    backend = CompileCounterWithBackend("aot_eager")
    plain = FeedForwardViT(**SMALL | {"depth": 3})
    compiled = torch.compile(plain, backend=backend, dynamic=False)
    model = DistributedDataParallel(compiled, bucket_cap_mb=0.002)
    order = _Order(model, plain.patch_embed.proj.weight)
    counts = []
    for side in SIDES:
        set_resolution(model, side)
        order.seen.clear()
        train(model, side)
        counts.append(backend.frame_count)
    assert counts[0] > 1
    assert counts[2:] == 4 * [3 * counts[0]]  # nothing is compiled again
    # From the second update on: the first one finds out in which order gradients come.
    assert order.seen[:2] == ["bucket", "bucket"]
    assert order.seen.count("last gradient") == 1
