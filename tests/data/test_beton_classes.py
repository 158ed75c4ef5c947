from pathlib import Path

import pytest

from ffvit.data.beton import BetonInfo, check_same_classes
from ffvit.errors import BetonError


def info(name, label_names):
    return BetonInfo(Path(name), 7, 3, label_names, 48, 56)


def test_same_or_unknown_classes_pass():
    check_same_classes(info("train", ("a", "b")), info("val", ("a", "b")))
    check_same_classes(info("train", ("a", "b")), info("val", None))


@pytest.mark.parametrize("names", [("a", "c"), ("a",), ("a", "b", "c")])
def test_other_classes_are_refused_by_the_first_difference(names):
    with pytest.raises(BetonError, match=r"val: expected the classes of train, but label [12] is"):
        check_same_classes(info("train", ("a", "b")), info("val", names))
