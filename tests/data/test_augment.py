import numpy as np
import torch

from ffvit.data.augment import normalize


def test_normalize_is_torchvisions_on_each_channel():
    images = torch.randint(0, 256, (3, 5, 7, 3), dtype=torch.uint8)
    result = normalize(images)
    expected = (images.numpy() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert result.shape == (3, 3, 5, 7)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_normalize_keeps_channels_last_in_memory():
    images = torch.zeros(2, 5, 7, 3, dtype=torch.uint8)
    assert normalize(images).is_contiguous(memory_format=torch.channels_last)
