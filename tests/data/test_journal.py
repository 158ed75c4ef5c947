"""A journal gives back what was noted of the images that are there, and only that."""

import pytest

from ffvit.data.beton_file import ImageRecord
from ffvit.data.images import SkippedImage
from ffvit.data.journal import Journal

ENTRIES = [
    ImageRecord(True, 48, 64, 1234 + i, 0xFFFFFFFF - i, False)
    if i % 3
    else SkippedImage(f"{i}.jpg", 'a "reason"\n')
    for i in range(10)
]


@pytest.fixture
def journal(tmp_path):
    """Open the same journal again and again."""

    opened = []

    def reopen(resume: bool = True) -> Journal:
        identity = {"seed": 1, "size": (3, 4)}
        opened.append(Journal(tmp_path / "journal", tmp_path / "a.beton", identity, resume))
        return opened[-1]

    yield reopen
    for journal in opened:
        journal.close()


def write(journal: Journal, entries: list) -> None:
    for entry in entries:
        journal.add(entry)
    journal.commit()


def test_entries_come_back_in_order(journal):
    first = journal()
    assert first.entries == []
    write(first, ENTRIES[:4])
    write(first, ENTRIES[4:])
    first.add(ENTRIES[0])  # and no commit
    first.close()
    assert journal().entries == ENTRIES


def test_entries_that_were_cut_do_not_come_back(journal):
    first = journal()
    write(first, ENTRIES[:5])
    first.cut(2)
    write(first, ENTRIES[7:])
    first.close()
    assert journal().entries == ENTRIES[:2] + ENTRIES[7:]


def test_lines_behind_a_torn_one_come_back(journal, tmp_path):
    first = journal()
    write(first, ENTRIES[:5])
    write(first, ENTRIES[5:])
    first.close()
    path = tmp_path / "journal"
    path.write_bytes(path.read_bytes()[:-7])
    second = journal()
    assert second.entries == ENTRIES[:5]
    write(second, ENTRIES[8:])
    second.close()
    assert journal().entries == ENTRIES[:5] + ENTRIES[8:]


def test_without_resume_it_is_empty(journal):
    first = journal()
    write(first, ENTRIES)
    first.close()
    second = journal(resume=False)
    assert second.entries == []
    second.close()
    assert journal().entries == []
