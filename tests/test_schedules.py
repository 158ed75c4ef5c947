"""Learning-rate and resolution schedules: properties, and values published by others."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffvit.errors import ConfigError
from ffvit.options import LrSection, ResolutionSection
from ffvit.schedules import (
    check_lr,
    check_resolution,
    first_epochs,
    learning_rate,
    resolution,
    resolutions,
    strength,
)

FFCV_RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}
CYCLIC = LrSection(lr=1.7, warmup_epochs=2, warmup_lr=1.7e-4)


@st.composite
def lr_runs(draw, schedules=("linear", "cosine")):
    epochs = draw(st.integers(1, 300))
    lr = draw(st.floats(1e-6, 10))
    section = LrSection(
        lr=lr,
        schedule=draw(st.sampled_from(schedules)),
        warmup_epochs=draw(st.floats(0, epochs)),
        warmup_lr=draw(st.floats(0, 1)) * lr,
        min_lr=draw(st.floats(0, 1)) * lr,
    )
    check_lr(section, epochs)
    return section, epochs, draw(st.integers(1, 500))


@st.composite
def ramps(draw):
    multiple = draw(st.sampled_from([1, 8, 16, 32]))
    low, high = sorted(draw(st.lists(st.integers(1, 30), min_size=2, max_size=2)))
    start, end = sorted(draw(st.lists(st.integers(0, 90), min_size=2, max_size=2)))
    section = ResolutionSection(low * multiple, high * multiple, start, max(end, 1), multiple)
    check_resolution(section)
    return section


@given(lr_runs())
def test_learning_rate_stays_between_the_lowest_and_the_peak(run):
    section, epochs, steps_per_epoch = run
    lowest = min(section.warmup_lr, section.min_lr)
    for step in range(0, epochs * steps_per_epoch, max(1, epochs * steps_per_epoch // 40)):
        rate = learning_rate(step, steps_per_epoch, section, epochs, 1.0)
        assert lowest * (1 - 1e-12) <= rate <= section.lr * (1 + 1e-12)


@given(lr_runs())
def test_learning_rate_ends_at_its_minimum(run):
    section, epochs, steps_per_epoch = run
    for step in (epochs * steps_per_epoch, epochs * steps_per_epoch + 7):
        assert learning_rate(step, steps_per_epoch, section, epochs, 1.0) == section.min_lr


@given(lr_runs(("linear", "cosine", "step")), st.floats(0.1, 10))
def test_learning_rate_is_proportional_to_the_batch_scale(run, scale):
    section, epochs, steps_per_epoch = run
    step = epochs * steps_per_epoch // 3
    rate = learning_rate(step, steps_per_epoch, section, epochs, 1.0)
    assert learning_rate(step, steps_per_epoch, section, epochs, scale) == scale * rate


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup_epochs", [0, 2, 2.5, 11])
def test_learning_rate_is_continuous_and_turns_once_at_the_end_of_the_warm_up(
    schedule, warmup_epochs
):
    section = LrSection(
        lr=0.7, schedule=schedule, warmup_epochs=warmup_epochs, warmup_lr=0.01, min_lr=0.02
    )
    epochs, steps_per_epoch = 13, 1000
    rates = [learning_rate(s, steps_per_epoch, section, epochs, 1.0) for s in range(13_001)]
    changes = np.diff(rates)
    peak = int(warmup_epochs * steps_per_epoch)
    steepest = 0.7 / (steps_per_epoch * min(warmup_epochs or 13, 13 - warmup_epochs)) * np.pi / 2
    assert rates[0] == (0.01 if warmup_epochs else 0.7)
    assert rates[peak] == pytest.approx(0.7, abs=1e-12)
    assert np.abs(changes).max() < steepest
    assert (changes[:peak] > 0).all()
    assert (changes[peak:] < 0).all()


def test_cosine_is_halfway_in_the_middle_and_flat_at_both_ends():
    section = LrSection(lr=1.0, schedule="cosine", min_lr=0.2)
    rates = [learning_rate(step, 100, section, 10, 1.0) for step in (0, 1, 500, 999)]
    assert rates[2] == pytest.approx(0.6)
    assert 1 - rates[1] < 1e-5
    assert rates[3] - 0.2 < 1e-5


def test_step_schedule_falls_after_each_third_of_the_run():
    section = LrSection(lr=1.0, schedule="step", warmup_epochs=1, min_lr=0.5)
    rates = [learning_rate(step, 7, section, 9, 1.0) for step in (0, 7, 20, 21, 41, 42, 63)]
    assert rates == pytest.approx([0, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_deit_schedule_runs_two_epochs_at_the_warm_ups_start_and_scales_the_peak_alone():
    """Rounded values of timm's scheduler, stepped as by DeiT's program."""
    section = LrSection(
        lr=5e-4, schedule="deit", warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5, base_batch_size=512
    )
    rates = [learning_rate(7 * epoch + 6, 7, section, 300, 2.0) for epoch in range(300)]
    assert rates[:2] == [1e-6, 1e-6]
    assert rates[2:7] == pytest.approx([2.0e-4, 4.0e-4, 6.0e-4, 8.0e-4, 9.99e-4], abs=5e-6)
    assert rates[-1] == pytest.approx(1.01e-5, rel=2e-3)
    assert rates == [learning_rate(7 * epoch, 7, section, 300, 2.0) for epoch in range(300)]


@pytest.mark.parametrize(
    ("epochs", "epoch", "logged"),
    [
        (16, 12, 0.364674908424908),
        (16, 13, 0.24324633699633702),
        (16, 14, 0.12181776556776501),
        (16, 15, 0.000389194139194),
        (40, 0, 0.8473609134615381),
        (40, 1, 1.697275913461538),
        (40, 2, 1.6554065452091762),
        (40, 31, 0.358038124156545),
    ],
)
def test_learning_rate_is_what_ffcv_imagenet_logged(epochs, epoch, logged):
    """An epoch's last of 312 steps, from assets/agg.csv of libffcv/ffcv-imagenet@4dd291a."""
    assert learning_rate(epoch * 312 + 311, 312, CYCLIC, epochs, 1.0) == pytest.approx(
        logged, abs=1e-14
    )


@pytest.mark.parametrize("epochs", FFCV_RAMPS)
def test_every_step_equals_ffcv_imagenets_interpolation_between_epochs(epochs):
    steps = 311
    at_epoch = np.interp(np.arange(epochs + 1), [0, 2, epochs], [1.7e-4, 1.7, 0])
    expected = np.concatenate(
        [
            np.interp(np.arange(steps), [0, steps], [at_epoch[e], at_epoch[e + 1]])
            for e in range(epochs)
        ]
    )
    got = [learning_rate(step, steps, CYCLIC, epochs, 1.0) for step in range(epochs * steps)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("epochs", "ramp"), FFCV_RAMPS.items())
def test_resolution_equals_ffcv_imagenets(epochs, ramp):
    section = ResolutionSection(160, 192, *ramp, multiple=32)
    expected = [int(np.round(np.interp(e, ramp, (160, 192)) / 32)) * 32 for e in range(epochs)]
    assert [resolution(e, section) for e in range(epochs)] == expected


def test_resolution_of_the_88_epoch_budget_is_the_designs_table():
    section = ResolutionSection(128, 224, 31, 70, 16)
    got = [resolution(epoch, section) for epoch in range(88)]
    assert [(value, len(list(run))) for value, run in itertools.groupby(got)] == [
        (128, 35),
        (144, 6),
        (160, 7),
        (176, 6),
        (192, 7),
        (208, 6),
        (224, 21),
    ]


@given(ramps(), st.integers(1, 100))
def test_resolution_is_a_multiple_never_shrinks_and_keeps_its_ends(section, epochs):
    values = [resolution(epoch, section) for epoch in range(epochs)]
    assert all(value % section.multiple == 0 for value in values)
    assert values == sorted(values)
    assert all(value == section.min_res for value in values[: section.start_ramp])
    assert all(value == section.max_res for value in values[section.end_ramp :])
    assert set(values) <= set(range(section.min_res, section.max_res + 1))


def test_a_tie_goes_to_the_even_multiple():
    assert resolution(1, ResolutionSection(64, 80, 0, 2, 16)) == 64
    assert resolution(1, ResolutionSection(80, 96, 0, 2, 16)) == 96


def test_equal_ramp_ends_jump_in_that_epoch():
    section = ResolutionSection(64, 96, 2, 2, 16)
    assert [resolution(epoch, section) for epoch in range(4)] == [64, 64, 96, 96]


@given(ramps(), st.floats(0, 1))
def test_strength_grows_from_its_start_to_1_with_the_resolutions_ramp(section, start):
    values = [strength(start, section, epoch) for epoch in range(92)]
    assert values == sorted(values)
    assert values[section.end_ramp] == values[-1] == 1
    if section.start_ramp < section.end_ramp:
        assert values[0] == values[section.start_ramp] == start


def test_strength_is_linear_and_1_throughout_without_a_ramp():
    section = ResolutionSection(128, 224, 31, 71, 16)
    assert strength(0.2, section, 51) == pytest.approx(0.6)
    assert {strength(0.2, ResolutionSection(), epoch) for epoch in range(9)} == {1.0}
    assert {strength(1.0, section, epoch) for epoch in range(88)} == {1.0}


def test_resolutions_lists_each_once_in_order_of_use():
    section = ResolutionSection(64, 112, 4, 9, 16)
    assert resolutions(section, 12) == [64, 80, 96, 112]
    assert resolutions(section, 6) == [64, 80]
    firsts = first_epochs(section, 12)
    assert list(firsts) == [64, 80, 96, 112]
    assert all(resolution(epoch, section) == side for side, epoch in firsts.items())
    assert all(resolution(epoch - 1, section) < side for side, epoch in firsts.items() if epoch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cyclic"}, "lr.schedule='cyclic'.*linear, cosine, step"),
        ({"lr": 0.0}, "lr.lr=0.0"),
        ({"warmup_lr": 2.0}, "lr.warmup_lr=2.0"),
        ({"min_lr": -0.1}, "lr.min_lr=-0.1"),
        ({"warmup_epochs": 7.5}, "lr.warmup_epochs=7.5.*training.epochs=7"),
        ({"warmup_epochs": -1.0}, "lr.warmup_epochs=-1.0"),
        ({"base_batch_size": -8}, "lr.base_batch_size=-8"),
    ],
)
def test_impossible_learning_rate_section_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        check_lr(LrSection(**({"lr": 1.0} | change)), epochs=7)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (ResolutionSection(128, 224, 5, 3, 16), "start_ramp=5.*end_ramp=3"),
        (ResolutionSection(128, 224, -1, 3, 16), "start_ramp=-1"),
        (ResolutionSection(224, 128, 0, 3, 16), "min_res=224 is above resolution.max_res=128"),
        (ResolutionSection(150, 224, 0, 3, 16), "min_res=150.*use 144 or 160"),
        (ResolutionSection(160, 200, 0, 3, 32), "max_res=200.*use 192 or 224"),
        (ResolutionSection(0, 224, 0, 3, 16), "min_res=0.*use 16"),
        (ResolutionSection(128, 224, 0, 3, 0), "multiple=0"),
        (ResolutionSection(128, 224, 0, 0, 16), "min_res=128 would never be used"),
    ],
)
def test_impossible_resolution_section_is_refused_by_name(section, message):
    with pytest.raises(ConfigError, match=message):
        check_resolution(section)


def test_default_sections_pass_their_checks():
    check_lr(LrSection(), epochs=1)
    check_resolution(ResolutionSection())
