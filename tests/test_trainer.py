import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from ffvit.distributed import Ranks
from ffvit.errors import DivergenceError
from ffvit.optim import create_optimizer
from ffvit.options import TrainingSection
from ffvit.progress import Progress
from ffvit.trainer import Trainer
from ffvit.workload import Workload

NUM_CLASSES = 5
RANKS = Ranks(0, 0, 1, 1, torch.device("cpu"))
SECTION = TrainingSection(
    epochs=4, global_batch_size=14, optimizer="adamw", weight_decay=0.01, mixed_precision=True
)


class Batches:
    """Seven images per batch, the same in every epoch."""

    def __init__(self, num_batches=6, batch_size=14):
        generator = torch.Generator().manual_seed(11)
        shape = (num_batches, batch_size, 8, 8, 3)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, NUM_CLASSES, shape[:2], generator=generator)
        self.resolution = 8
        self.num_images = num_batches * batch_size

    def __len__(self):
        return len(self.images)

    def __iter__(self):
        yield from zip(self.images, self.labels, strict=True)


def network(seed=0, drop_rate=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(192, 31),
        nn.ReLU(),
        nn.Dropout(drop_rate),
        nn.Linear(31, NUM_CLASSES),
    )


def prepare(images):
    return images.permute(0, 3, 1, 2).float() / 128 - 1


class Log:
    """Keeps records instead of writing them."""

    def __init__(self):
        self.steps = []

    def record(self, kind, **values):
        assert kind == "step"
        self.steps.append(values)

    @contextlib.contextmanager
    def progress(self, *_):
        yield Progress(self.line, None, "", 0)

    def line(self, text):
        pass


def trainer(section=SECTION, model=None, lr=3e-3, log_interval=4, log=None):
    model = model or network()
    return Trainer(
        model,
        create_optimizer(model, section),
        section,
        RANKS,
        NUM_CLASSES,
        prepare=prepare,
        augment=lambda batch, _: (prepare(batch[0]), batch[1]),
        learning_rate=lr if callable(lr) else lambda _: lr,
        log=log or Log(),
        log_interval=log_interval,
    )


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_overfits_one_batch():
    batches = Batches(num_batches=1)
    subject = trainer(model=network(drop_rate=0.0))
    for epoch in range(150):
        subject.train_epoch(batches, epoch)
    assert subject.evaluate(batches, 14, flip_average=False)["top_1"] == 1.0


def test_two_runs_are_bitwise_equal():
    first, second = trainer(), trainer()
    for subject in (first, second):
        torch.manual_seed(torch.seed())
        for epoch in range(2):
            subject.train_epoch(Batches(), epoch)
    assert (weights(first.model) == weights(second.model)).all()


def test_another_seed_is_another_run():
    first, second = trainer(), trainer(replace(SECTION, seed=1))
    for subject in (first, second):
        subject.train_epoch(Batches(), 0)
    assert (weights(first.model) != weights(second.model)).any()


def test_two_epochs_and_two_more_are_four():
    section = replace(SECTION, ema_decay=0.9)
    whole = trainer(section)
    for epoch in range(4):
        whole.train_epoch(Batches(), epoch)
        if epoch == 1:
            state = copy.deepcopy(whole.state_dict())
    resumed = trainer(section, model=network(seed=9))
    resumed.load_state_dict(state)
    for epoch in (2, 3):
        resumed.train_epoch(Batches(), epoch)
    assert resumed.step == whole.step == 24
    assert (weights(resumed.model) == weights(whole.model)).all()
    assert (weights(resumed.ema.module) == weights(whole.ema.module)).all()
    assert (weights(whole.ema.module) != weights(whole.model)).any()


def test_averaged_weights_follow_the_update():
    subject = trainer(replace(SECTION, ema_decay=0.9))
    before = weights(subject.model)
    subject.train_epoch(Batches(num_batches=1), 0)
    expected = 0.9 * before + 0.1 * weights(subject.model)
    torch.testing.assert_close(weights(subject.ema.module), expected)
    assert (expected != before).any()


def test_micro_batches_add_up_to_one_batch():
    one = trainer(model=network(drop_rate=0.0))
    one.train_epoch(Batches(num_batches=3, batch_size=14), 0)
    halves = Batches(num_batches=3, batch_size=14)
    halves.images = halves.images.reshape(6, 7, 8, 8, 3)
    halves.labels = halves.labels.reshape(6, 7)
    two = trainer(replace(SECTION, accumulation_steps=2), model=network(drop_rate=0.0))
    two.train_epoch(halves, 0)
    assert two.step == one.step == 3
    torch.testing.assert_close(weights(two.model), weights(one.model), atol=1e-6, rtol=0)


def test_learning_rate_is_set_at_every_step():
    subject = trainer(lr=lambda step: 0.0 if step < 6 else 1e-2)
    before = weights(subject.model)
    subject.train_epoch(Batches(), 0)
    assert (weights(subject.model) == before).all()
    subject.train_epoch(Batches(), 1)
    assert (weights(subject.model) != before).any()


def test_non_finite_loss_names_its_step():
    batches = Batches()
    model = network(drop_rate=0.0)
    subject = trainer(model=model)

    def poison(batch, _):
        inputs = prepare(batch[0])
        return (inputs * float("nan") if subject.step == 2 else inputs), batch[1]

    subject._augment = poison
    with pytest.raises(DivergenceError, match=r"got nan in step 3 \(epoch 1"):
        subject.train_epoch(batches, 0)


def test_clipping_bounds_the_update():
    section = replace(SECTION, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_grad=1e-3)
    subject = trainer(section, lr=1.0)
    before = weights(subject.model)
    subject.train_epoch(Batches(num_batches=1), 0)
    assert (weights(subject.model) - before).norm() == pytest.approx(1e-3, rel=1e-3)


def test_records_come_at_the_log_interval_and_at_the_end():
    log = Log()
    result = trainer(log=log).train_epoch(Batches(num_batches=6), 0)
    assert [record["step"] for record in log.steps] == [4, 6]
    mean = (log.steps[0]["loss"] * 4 + log.steps[1]["loss"] * 2) / 6
    assert result["train_loss"] == pytest.approx(mean)
    assert all(0 <= record["data_wait_fraction"] <= 1 for record in log.steps)


def test_records_say_how_fast_it_went_and_how_long_it_will_take():
    log, subject = Log(), trainer()
    subject._log = log
    subject._workload = Workload({8: 100.0}, [84 * 100.0 + 50.0] * 4, peak_flops=1e6)
    result = subject.train_epoch(Batches(num_batches=6), 0)
    for record in (*log.steps, result):
        assert 0 < record["step_p50_ms"] <= record["step_p95_ms"] <= record["step_max_ms"]
        assert record["mfu"] == pytest.approx(record["images_per_s"] * 100.0 / 1e6)
        assert 0.01 < record["peak_memory_gib"] < 100
    assert result["step_max_ms"] == max(record["step_max_ms"] for record in log.steps)
    assert 6 * result["step_p50_ms"] < 6e3 * result["train_s"]
    rate = log.steps[-1]["time_left_s"] * result["images_per_s"] * 100
    assert rate == pytest.approx(50 + 3 * 8450, rel=0.2)  # a clock goes on between the two


def test_without_a_workload_there_is_neither_mfu_nor_time_left():
    log = Log()
    result = trainer(log=log).train_epoch(Batches(), 0)
    assert not {"mfu", "time_left_s"} & (set(log.steps[0]) | set(result))


def test_stages_of_an_update_are_named_in_order():
    names = []

    @contextlib.contextmanager
    def stage(name):
        names.append(name)
        yield
        names.append(f"/{name}")

    subject = trainer(replace(SECTION, accumulation_steps=2), log_interval=100)
    subject._stage = stage
    subject.train_epoch(Batches(num_batches=2, batch_size=7), 0)
    micro = ["wait for data", "augment", "forward", "backward"]
    expected = [*micro, *micro, "optimizer"]
    assert names == [text for name in expected for text in (name, f"/{name}")]


def test_host_does_not_wait_for_the_device_between_records(monkeypatch):
    section = replace(SECTION, optimizer="sgd", ema_decay=0.9)
    calls = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self, *arguments, _original=original, _name=name, **options):
            calls.append(_name)
            return _original(self, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)
    trainer(section, log_interval=100).train_epoch(Batches(num_batches=9), 0)
    assert calls == ["tolist"]


def test_evaluation_counts_and_measures_the_averaged_weights_too():
    batches = Batches()
    subject = trainer(replace(SECTION, ema_decay=0.9))
    subject.train_epoch(batches, 0)
    result = subject.evaluate(batches, batches.num_images, flip_average=False)
    with torch.no_grad():
        logits = subject.model.eval()(prepare(batches.images.flatten(0, 1)))
    expected = (logits.argmax(1) == batches.labels.flatten()).float().mean()
    assert result["top_1"] == pytest.approx(float(expected))
    assert result["ema_loss"] != result["loss"]
    assert result["num_samples"] == batches.num_images


def test_flip_average_makes_mirror_images_equal():
    batches, mirrored = Batches(), Batches()
    mirrored.images = mirrored.images.flip(3)
    subject = trainer()
    plain, flipped = (
        subject.evaluate(each, each.num_images, flip_average=True) for each in (batches, mirrored)
    )
    assert plain["loss"] == pytest.approx(flipped["loss"], abs=1e-6)
    assert plain["loss"] != subject.evaluate(batches, batches.num_images, False)["loss"]


def test_non_finite_validation_loss_is_refused():
    subject = trainer()
    with torch.no_grad():
        subject.model[-1].bias[0] = float("inf")
    with pytest.raises(DivergenceError, match=r"finite validation loss, got \w+ after step 0"):
        subject.evaluate(Batches(), 84, flip_average=False)


def test_loading_keeps_this_devices_way_to_compute_updates():
    subject = trainer()
    state = copy.deepcopy(subject.state_dict())
    for group in state["optimizer"]["param_groups"]:
        group["foreach"], group["fused"] = True, False
    subject.load_state_dict(state)
    assert {group["fused"] for group in subject.optimizer.param_groups} == {True}
    assert {group["foreach"] for group in subject.optimizer.param_groups} == {None}


def test_evaluation_that_misses_images_is_an_error():
    batches = Batches()
    with pytest.raises(RuntimeError, match="evaluated 84 images of 85"):
        trainer().evaluate(batches, 85, flip_average=False)


class Rest(Batches):
    """Begins with the first batch that is not done yet."""

    def __init__(self, first):
        super().__init__()
        self.first = first

    def __iter__(self):
        yield from list(super().__iter__())[self.first :]


def network_with_batch_norm(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(192, 31), nn.BatchNorm1d(31), nn.Dropout(0.2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(31, NUM_CLASSES))


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("num_done", [1, 2, 3])
def test_a_run_goes_on_after_any_update_as_if_it_had_never_been_stopped(
    accumulation_steps, num_done
):
    section = replace(SECTION, ema_decay=0.9, accumulation_steps=accumulation_steps)
    states, whole_log = [], Log()
    whole = trainer(section, network_with_batch_norm(), log_interval=2, log=whole_log)
    expected = whole.train_epoch(Batches(), 0, lambda: states.append(save(whole)))
    log = Log()
    resumed = trainer(section, network_with_batch_norm(seed=9), log_interval=2, log=log)
    resumed.load_state_dict(states[num_done - 1])
    assert resumed.updates_done(0) == num_done
    assert resumed.updates_done(1) == 0
    result = resumed.train_epoch(Rest(num_done * accumulation_steps), 0)
    for name, tensor in whole.model.state_dict().items():
        assert (resumed.model.state_dict()[name] == tensor).all(), name
    assert (weights(resumed.ema.module) == weights(whole.ema.module)).all()
    assert result["train_loss"] == expected["train_loss"]
    assert [(r["step"], r["loss"]) for r in log.steps] == [
        (r["step"], r["loss"]) for r in whole_log.steps if r["step"] > num_done
    ]
    assert result["train_s"] > states[num_done - 1]["tally"]["total"]["elapsed_s"]


def save(subject):
    return copy.deepcopy(subject.state_dict())


def test_a_state_that_is_not_finite_is_not_given_out():
    subject = trainer(model=network(drop_rate=0.0), log_interval=100)
    subject._augment = lambda batch, _: (prepare(batch[0]) * float("nan"), batch[1])
    with pytest.raises(DivergenceError, match=r"got nan in step 1 \(epoch 1"):
        subject.train_epoch(Batches(), 0, lambda: save(subject))


def test_compilation_comes_before_the_batches_once_and_leaves_no_trace(monkeypatch):
    backend = CompileCounterWithBackend("eager")
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **kw: compile_with(m, backend=backend, **kw))

    class Watched(Batches):
        def __iter__(self):
            assert backend.frame_count == section.compile
            yield from super().__iter__()

    results = []
    for compiled in (False, True):
        torch._dynamo.reset()
        section = replace(SECTION, compile=compiled)
        torch.manual_seed(3)
        normed = nn.Sequential(nn.BatchNorm2d(3), *network())
        subject = trainer(section, model=normed)
        for epoch in range(2):
            subject.train_epoch(Watched(), epoch)
        results.append(torch.cat([weights(normed), normed[0].running_mean]))
    assert backend.frame_count == 1
    assert torch.equal(*results)
