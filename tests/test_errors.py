import pytest

from ffvit.errors import BetonError, one_line_errors


@pytest.mark.parametrize(
    ("rank", "is_local", "text"),
    [
        ("0", False, "error: a line of two\n"),
        ("1", False, ""),
        ("1", True, "error: a line of two\n"),
    ],
)
def test_user_error_is_one_line_of_the_rank_that_knows(monkeypatch, capsys, rank, is_local, text):
    monkeypatch.setenv("LOCAL_RANK", rank)
    error = BetonError("a line\nof two")
    error.is_local = is_local
    with pytest.raises(SystemExit) as info, one_line_errors():
        raise error
    assert info.value.code == 2
    assert capsys.readouterr().err == text


def test_other_exceptions_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def test_text_from_a_file_cannot_steer_a_terminal(capsys):
    with pytest.raises(SystemExit), one_line_errors():
        raise BetonError("class \x1b[2Jé\u202e\r\n\x9b1m \udc80")
    assert capsys.readouterr().err == "error: class \\x1b[2Jé\\u202e \\x9b1m \\udc80\n"
