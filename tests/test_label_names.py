"""Classes of a data set are found among a model's, by name or by WordNet id."""

import pytest

from ffvit.errors import ConfigError
from ffvit.label_names import match_classes, short_name
from ffvit.models.loading import with_words

MODEL = ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "cat", "n1 x")


def test_classes_are_matched_by_name_whatever_their_order():
    assert match_classes(["cat", "n01443537 goldfish"], MODEL, "x") == [2, 1]


def test_a_wordnet_id_is_enough_on_either_side():
    assert match_classes(["n01443537", "n01440764 other words"], MODEL, "x") == [1, 0]
    assert match_classes(["n01443537 goldfish"], ["n01440764", "n01443537"], "x") == [1]


@pytest.mark.parametrize("name", ["dog", "n1", "n01443537x", "n02119789 kit fox"])
def test_a_class_that_the_model_lacks_is_named(name):
    with pytest.raises(ConfigError, match=rf"^data: .*1 of 2 are not, such as '{name}'"):
        match_classes(["cat", name], MODEL, "data")


def test_ids_of_imagenet_get_their_words_and_other_names_stay():
    names = ("n01440764", "n01443537 goldfish", "n00000000", "cat")
    assert with_words(names) == ("n01440764 tench, Tinca tinca", *names[1:])


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("n01440764 tench, Tinca tinca", "tench"),
        ("n01440764", "n01440764"),
        ("cats, dogs", "cats, dogs"),
        ("n1 x", "n1 x"),
    ],
)
def test_a_short_name_is_the_first_word_behind_an_id(name, short):
    assert short_name(name) == short
