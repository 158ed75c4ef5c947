"""What a model confuses: counted, kept, drawn, read back."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from ffvit.errors import UserError
from ffvit.explanation import Explanation, load_explanation

NAMES = ["cat", "dog", "eel", "fox"]
CONFUSION = np.array([[8, 2, 0, 0], [5, 5, 0, 0], [0, 0, 0, 0], [1, 0, 0, 9]])


def explanation(names=None, confusion=CONFUSION):
    return Explanation(names or NAMES, confusion, "run after step 9")


def test_classes_come_with_the_lowest_accuracy_first_and_only_if_they_have_images():
    assert explanation().class_accuracy() == [("dog", 10, 0.5), ("cat", 10, 0.8), ("fox", 10, 0.9)]
    assert explanation().top_1 == 22 / 30


def test_confusions_come_with_the_most_frequent_first():
    assert explanation().most_confused(2) == [("dog", "cat", 5, 10), ("cat", "dog", 2, 10)]
    assert explanation().most_confused(99)[-1] == ("fox", "cat", 1, 10)


def test_what_was_saved_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    (tmp_path / "explanation").mkdir()
    explanation().save(tmp_path / "explanation")
    loaded = load_explanation(tmp_path)
    assert np.array_equal(loaded.confusion, CONFUSION)
    assert (loaded.label_names, loaded.weights) == (NAMES, "run after step 9")
    assert load_explanation(tmp_path / "explanation") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"label_names": ["a"], "confusion": [[3, 0, 1]]}'])
def test_a_damaged_file_is_one_line(tmp_path, text):
    (tmp_path / "explanation").mkdir()
    (tmp_path / "explanation" / "classes.json").write_text(text)
    with pytest.raises(UserError, match=r"classes\.json: expected what .* explain` wrote"):
        load_explanation(tmp_path)


@pytest.mark.parametrize("num_classes", [4, 30, 100])
def test_pictures_name_what_there_is_room_for(tmp_path, monkeypatch, num_classes):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    names = [f"class_{k} $x$ {'long' * 9}" for k in range(num_classes)]
    confusion = 3 * np.eye(num_classes, dtype=np.int64)
    confusion[1, 2], confusion[3, 2] = 1, 2
    explanation(names, confusion).save(tmp_path)
    matrix, classes = (figure.axes[0] for figure in figures)
    assert matrix.images[0].get_array()[1, 2] == pytest.approx(0.5)  # the root of a quarter
    shown = [text.get_text() for text in matrix.get_yticklabels()]
    assert (shown[0].startswith("class_0 $x$ long")) == (num_classes <= 40)
    assert len(matrix.texts) == (num_classes + 2 if num_classes <= 20 else 0)
    assert len(classes.patches) == min(num_classes, 40)
    assert [bar.get_width() for bar in classes.patches[:2]] == [pytest.approx(60), 75]
    assert len(classes.get_yticklabels()[0].get_text()) == 24


def test_the_file_has_only_the_cells_that_are_not_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    explanation().save(tmp_path)
    assert len(json.loads((tmp_path / "classes.json").read_text())["confusion"]) == 6
