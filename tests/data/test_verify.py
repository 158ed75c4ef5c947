"""Verify finds what is wrong, and where; without a manifest it says what it cannot find."""

from pathlib import Path

import numpy as np
import pytest
from conftest import NUM_TRAIN, encode, gradient
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter

from ffvit.__main__ import main
from ffvit.data import verify
from ffvit.data.manifest import manifest_path
from ffvit.data.tables import read_tables
from ffvit.data.verify import describe, verify_beton


class Images:
    """Arrays and labels, as stock ffcv's users hand them over."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int):
        return np.asarray(gradient(31 + index, 43)), index


def write_stock(path: Path, mode: str) -> None:
    fields = {"image": RGBImageField(mode), "label": IntField()}
    writer = DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=1)
    writer.from_indexed_dataset(Images())


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def flip_image(path: Path, sample: int) -> None:
    """Flip a bit in the middle of an image."""
    tables = read_tables(path)
    place = int(tables.pointers[sample]) + int(tables.sizes[sample]) // 2
    overwrite(path, place, bytes([path.read_bytes()[place] ^ 1]))


def test_sound_beton_has_no_findings(tiny_beton):
    result = verify_beton(tiny_beton)
    assert (result.findings, result.num_jpegs, result.has_manifest) == ([], NUM_TRAIN, True)
    assert "no image is bad" in describe(result)


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_sound_stock_beton_has_no_findings_and_is_said_to_be_half_checked(tmp_path, mode):
    write_stock(tmp_path / "a.beton", mode)
    result = verify_beton(tmp_path / "a.beton")
    assert (result.findings, result.has_manifest) == ([], False)
    text = describe(result)
    assert "there is no manifest" in text
    assert ("raw pixels" in text) == (mode == "raw")


def test_every_bad_sample_is_named_once_in_order_with_its_class(beton_copy):
    for sample in (51, 3, 40):
        flip_image(beton_copy, sample)
    tables = read_tables(beton_copy)
    overwrite(beton_copy, int(tables.pointers[3]), bytes(20))
    result = verify_beton(beton_copy)
    assert [finding.sample for finding in result.findings] == [3, 40, 51]
    assert "not a JPEG" in result.findings[0].reason
    assert all("not those that were written" in found.reason for found in result.findings)
    lines = describe(result).splitlines()
    assert lines[0] == f"{beton_copy}: 3 of {NUM_TRAIN} images are bad"
    label = int(tables.labels[51])
    assert lines[-1].startswith(f"  sample 51, label {label} (class_{label}): its bytes")


def test_undecodable_image_is_found_without_a_manifest(beton_copy):
    manifest_path(beton_copy).unlink()
    tables = read_tables(beton_copy)
    overwrite(beton_copy, int(tables.pointers[7]) + int(tables.sizes[7]) - 200, bytes(100))
    result = verify_beton(beton_copy)
    assert [finding.sample for finding in result.findings] == [7]
    assert "damaged" in result.findings[0].reason


def test_jpeg_of_another_size_than_its_record_says_is_found(beton_copy):
    # Another file of at most the same length in the sample's place.
    tables = read_tables(beton_copy)
    other = encode(gradient(16, 16), quality=30)
    assert len(other) <= tables.sizes[9]
    overwrite(beton_copy, int(tables.pointers[9]), other)
    manifest_path(beton_copy).unlink()
    assert "width and height" in verify_beton(beton_copy).findings[0].reason


@pytest.mark.parametrize("place", ["begin", "first gap", "last gap", "end"])
def test_bytes_between_images_are_looked_at(tmp_path, place):
    path = tmp_path / "a.beton"
    write_stock(path, "jpg")  # ffcv fills up its first and last page
    tables = read_tables(path)
    begin, end = int(tables.pointers.min()), int((tables.pointers + tables.sizes).max())
    places = {
        "begin": tables.data_begin,
        "first gap": begin - 1,
        "last gap": end,
        "end": tables.data_end - 1,
    }
    at = places[place]
    overwrite(path, at, b"\1")
    result = verify_beton(path)
    assert [(found.sample, f"byte {at:,} of" in found.reason) for found in result.findings] == [
        (None, True)
    ]
    assert "1 byte between images" in describe(result)


@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_pieces_cover_every_byte_and_every_sample_once(tmp_path, monkeypatch, mode):
    write_stock(tmp_path / "a.beton", mode)
    tables = read_tables(tmp_path / "a.beton")
    for piece_bytes in (1000, 100_000, 1 << 30):
        monkeypatch.setattr(verify, "_PIECE_BYTES", piece_bytes)
        pieces = list(verify._pieces(tables))
        assert [piece.begin for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
        assert (pieces[0].begin, pieces[-1].end) == (tables.data_begin, tables.data_end)
        largest = max(piece_bytes, int(tables.sizes.max()))
        assert all(piece.end - piece.begin <= largest for piece in pieces)
        samples = np.concatenate([piece.samples for piece in pieces])
        assert sorted(samples) == list(range(5))
        assert verify_beton(tmp_path / "a.beton").findings == []


def test_command_lists_all_betons_and_ends_with_status_2(beton_copy, tiny_beton, tmp_path, capsys):
    flip_image(beton_copy, 3)
    (tmp_path / "empty.beton").touch()
    with pytest.raises(SystemExit) as info:
        main(["verify", str(beton_copy), str(tmp_path / "empty.beton"), str(tiny_beton)])
    assert info.value.code == 2
    out, err = capsys.readouterr()
    assert f"{beton_copy}: 1 of {NUM_TRAIN} images is bad" in out
    assert "sample 3, " in out
    assert "got an empty file" in out
    assert f"{tiny_beton}: no image is bad" in out
    assert err.splitlines()[-1].startswith("error: bad: ")
    assert "2 of 3 betons" in err


def test_command_succeeds_for_a_sound_beton(tiny_beton, capsys):
    main(["verify", str(tiny_beton)])
    assert capsys.readouterr().out.startswith(f"{tiny_beton}: no image is bad\n")
