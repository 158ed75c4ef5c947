"""Operations on pixels against timm's functions, which call Pillow, with the same arguments."""

import numpy as np
import pytest
import torch
from conftest import gradient
from PIL import Image, ImageFilter
from timm.data import auto_augment as timm_augment

from ffvit.data.augment import FILL
from ffvit.data.operations import device, host
from ffvit.data.operations.plans import Kind, make_plan
from ffvit.data.operations.policies import Draws, Operation, RandAugment

HEIGHT, WIDTH = 37, 53
SETTINGS = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}
BACKENDS = [pytest.param(module, id=module.__name__.split(".")[-1]) for module in (host, device)]
PILLOW = {
    Operation.AUTO_CONTRAST: timm_augment.auto_contrast,
    Operation.EQUALIZE: timm_augment.equalize,
    Operation.INVERT: timm_augment.invert,
    Operation.ROTATE: timm_augment.rotate,
    Operation.POSTERIZE: lambda image, bits, **_: (
        # What Pillow did until it refused to leave no bits.
        timm_augment.posterize(image, bits) if bits else Image.new("RGB", image.size)
    ),
    Operation.SOLARIZE: timm_augment.solarize,
    Operation.SOLARIZE_ADD: timm_augment.solarize_add,
    Operation.COLOR: timm_augment.color,
    Operation.CONTRAST: timm_augment.contrast,
    Operation.BRIGHTNESS: timm_augment.brightness,
    Operation.SHARPNESS: timm_augment.sharpness,
    Operation.SHEAR_X: timm_augment.shear_x,
    Operation.SHEAR_Y: timm_augment.shear_y,
    Operation.TRANSLATE_X: timm_augment.translate_x_rel,
    Operation.TRANSLATE_Y: timm_augment.translate_y_rel,
    Operation.BLUR: timm_augment.gaussian_blur,
}
NO_ARGUMENT = (Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT)
GEOMETRIC = [o for o in Operation if o.name.startswith(("ROTATE", "SHEAR_", "TRANSLATE"))]
FACTORS = (0.1, 0.37, 1.0, 1.55, 1.9)
ARGUMENTS = {
    **dict.fromkeys(NO_ARGUMENT, (0,)),
    **dict.fromkeys(
        (Operation.COLOR, Operation.CONTRAST, Operation.BRIGHTNESS, Operation.SHARPNESS), FACTORS
    ),
    Operation.POSTERIZE: (0, 1, 3, 4, 8),
    Operation.SOLARIZE: (0, 1, 26, 128, 256),
    Operation.SOLARIZE_ADD: (0, 33, 110, 128),
    Operation.ROTATE: (-30, -7.3, 0, 11.1, 30),
    Operation.SHEAR_X: (-0.3, 0.17),
    Operation.SHEAR_Y: (-0.3, 0.17),
    Operation.TRANSLATE_X: (-0.45, 0.123),
    Operation.TRANSLATE_Y: (-0.45, 0.123),
    Operation.BLUR: (0.1, 0.8, 1.4, 2.0),
}


def some_images():
    """Images of all kinds: even, of few values, dark, noise, edges."""
    rng = np.random.default_rng(0)
    smooth = np.asarray(gradient(HEIGHT, WIDTH))
    noise = rng.integers(0, 256, smooth.shape, dtype=np.uint8)
    few = np.where(smooth > 100, 200, 90).astype(np.uint8)
    few[..., 1] = 77
    blurred = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
    return np.stack([smooth, noise, few, smooth // 3 + 20, np.full_like(smooth, 201), blurred])


def change(backend, images, operations, arguments):
    """Do the operations, one after the other, to each of the images."""
    shape = (len(images), len(operations))
    draws = Draws(np.broadcast_to(operations, shape), np.broadcast_to(arguments, shape) * 1.0)
    return change_each(backend, images, draws)


def change_each(backend, images, draws):
    changed = torch.from_numpy(images.copy())
    backend.change_pixels(changed, make_plan(draws, *images.shape[1:3]), FILL)
    return changed.numpy()


def pillow(images, operations, arguments):
    result = []
    for pixels in images:
        image = Image.fromarray(pixels)
        for operation, argument in zip(operations, arguments, strict=True):
            given = () if operation in NO_ARGUMENT else (argument,)
            image = PILLOW[operation](image, *given, **SETTINGS)
        result.append(np.asarray(image))
    return np.stack(result)


@pytest.fixture(scope="module", params=BACKENDS)
def each_operation(request):
    """Do each operation with each argument to each image: {(operation, argument): images}."""
    cases = [(operation, a) for operation, values in ARGUMENTS.items() for a in values]
    operations, arguments = (
        np.repeat(column, len(some_images())) for column in zip(*cases, strict=True)
    )
    images = np.tile(some_images(), (len(cases), 1, 1, 1))
    draws = Draws(operations[:, None], arguments[:, None] * 1.0)
    changed = change_each(request.param, images, draws)
    return dict(zip(cases, changed.reshape(len(cases), -1, HEIGHT, WIDTH, 3), strict=True))


@pytest.mark.parametrize("operation", ARGUMENTS, ids=lambda operation: operation.name)
def test_each_operation_is_pillows(each_operation, operation):
    for argument in ARGUMENTS[operation]:
        ours = each_operation[operation, argument].astype(int)
        difference = np.abs(ours - pillow(some_images(), [operation], [argument]))
        if (
            operation == Operation.BLUR
        ):  # Pillow rounds and continues the border in each of 6 passes
            assert difference[:, 6:-6, 6:-6].max() <= 3
            assert difference.mean(axis=(1, 2, 3)).max() < 1
        elif operation in GEOMETRIC:  # Pillow computes in float64
            assert difference.max() <= 1
            assert difference.mean() < 2e-3
        else:
            assert difference.max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_operations_follow_each_other_as_in_pillow(backend):
    """All pairs that are exact alone are exact together."""
    exact = [o for o in ARGUMENTS if o not in (*GEOMETRIC, Operation.BLUR)]
    images = some_images()
    pairs = [(first, second) for first in exact for second in exact]
    arguments = [[ARGUMENTS[operation][-1] for operation in pair] for pair in pairs]
    draws = Draws(*(np.repeat(column, len(images), axis=0) for column in (pairs, arguments)))
    ours = change_each(backend, np.tile(images, (len(pairs), 1, 1, 1)), draws)
    ours = ours.reshape(len(pairs), *images.shape)
    for number, pair in enumerate(pairs):
        assert (ours[number] == pillow(images, pair, arguments[number])).all(), pair


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_table_before_or_after_a_warp_changes_the_fill_only_after_it(backend):
    images = some_images()
    for operations in ([Operation.INVERT, Operation.ROTATE], [Operation.ROTATE, Operation.INVERT]):
        ours = change(backend, images, operations, [20.0, 20.0]).astype(int)
        assert np.abs(ours - pillow(images, operations, [20.0, 20.0])).max() <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_geometric_operations_compose_into_one_resampling(backend):
    pairs = [(first, second) for first in GEOMETRIC for second in GEOMETRIC]
    arguments = [[ARGUMENTS[first][0], ARGUMENTS[second][-1]] for first, second in pairs]
    draws = Draws(np.array(pairs), np.array(arguments, dtype=float))
    assert (make_plan(draws, 45, 55).kinds == Kind.WARP).all()
    assert make_plan(draws, 45, 55).kinds.shape == (len(pairs), 1)
    ramp = np.linspace(30, 220, 45)[:, None, None] / 2 + np.linspace(30, 220, 55)[:, None] / 2
    images = np.broadcast_to(ramp, (len(pairs), 45, 55, 3)).astype(np.uint8)
    for image, pair, given in zip(
        change_each(backend, images, draws).astype(int), pairs, arguments, strict=True
    ):
        theirs = pillow(images[:1], pair, given)[0]
        # Of one colour, which the fill is not. What Pillow's first drops stays dropped.
        inside = (theirs[..., 0] == theirs[..., 1]) & (image[..., 0] == image[..., 1])
        assert inside.mean() > 0.2
        assert (np.abs(image - theirs)[inside] <= 3).mean() > 0.95, pair


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_even_image_stays_even_when_it_is_resampled(backend):
    images = np.full((3, HEIGHT, WIDTH, 3), [[[[1]]], [[[128]]], [[[254]]]], dtype=np.uint8)
    ours = change(backend, images, [Operation.ROTATE], [13.7])
    for image, value in zip(ours, (1, 128, 254), strict=True):
        assert set(np.unique(image)) == {value, *FILL}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 2)])
def test_small_images_are_changed_as_by_pillow(backend, size):
    images = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    for operation in list(Operation)[1:16]:  # all but the blur
        argument = ARGUMENTS[operation][-1]
        ours = change(backend, images, [operation], [argument]).astype(int)
        tolerance = 1 if operation in GEOMETRIC else 0
        assert np.abs(ours - pillow(images, [operation], [argument])).max() <= tolerance, operation


def test_both_backends_agree_on_what_randaugment_draws():
    images = np.tile(some_images(), (10, 1, 1, 1))
    draws = RandAugment(9, 2, 0.5, 0.5, 10, True).draw(1, 2, np.arange(len(images)), 1.0)
    plan = make_plan(draws, HEIGHT, WIDTH)
    results = []
    for backend in (host, device):
        changed = torch.from_numpy(images.copy())
        backend.change_pixels(changed, plan, FILL)
        results.append(changed.int())
    assert (results[0] != torch.from_numpy(images)).any(dim=(1, 2, 3)).float().mean() > 0.5
    difference = (results[0] - results[1]).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 1e-3


def test_plans_leave_out_turns_in_which_nothing_happens():
    none, invert, rotate = Operation.NONE, Operation.INVERT, Operation.ROTATE
    operations = [[none, none, rotate], [none, invert, none], [rotate, none, rotate]]
    plan = make_plan(Draws(np.array(operations), np.ones((3, 3))), 8, 8)
    assert plan.kinds.tolist() == [[Kind.WARP], [Kind.TABLE], [Kind.WARP]]
    nothing = make_plan(Draws(np.full((4, 2), none), np.zeros((4, 2))), 8, 8)
    assert nothing.kinds.shape == (4, 0)
    assert nothing.tables.shape == (4, 0, 256)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_to_which_nothing_happens_stays(backend):
    images = some_images()
    assert (change(backend, images, [Operation.NONE], [0.0]) == images).all()
