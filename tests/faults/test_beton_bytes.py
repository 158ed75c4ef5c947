"""Section "Reading a beton's bytes" of docs/reliability.md: no damaged byte hangs, crashes or lies.

Beside each row stock ffcv 1.0.2 reads the same file, so that what the page says of it stays true.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from damaged_betons import (
    HOSTILE,
    NUM_SAMPLES,
    copy_damaged,
    erase_begin,
    flip_middle,
    special_files,
    write_sound,
)

from ffvit.data.beton import open_beton, read_tables
from ffvit.data.manifest import load_manifest, manifest_path
from ffvit.data.verify import verify_beton
from ffvit.errors import BetonError

HERE = Path(__file__).resolve().parent
# What stock ffcv does within this time it does; after it, it hangs.
STOCK_TIMEOUT_S = 10


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, Path]:
    """Betons of JPEGs, of pixels, and with padding: jpg, raw and padded."""
    return write_sound(tmp_path_factory.mktemp("sound"))


def refuse(path: Path) -> str:
    """Open a beton that must be refused; the message, which is one line and names the file."""
    with pytest.raises(BetonError) as info:
        open_beton(path)
    message = str(info.value)
    assert message.startswith(f"{path}"), message
    assert message.isprintable()
    return message


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_beton_is_refused_at_open(sound, tmp_path, name, with_manifest):
    mode, damage = HOSTILE[name]
    path = copy_damaged(sound[mode], tmp_path / "a.beton", damage, with_manifest)
    refuse(path)
    with pytest.raises(BetonError):
        verify_beton(path)


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("mode", ["jpg", "raw", "padded"])
def test_beton_cut_at_any_of_50_lengths_is_refused(sound, tmp_path, mode, with_manifest):
    data = sound[mode].read_bytes()
    rng = np.random.default_rng(0)
    # Half of them where it hurts: in header and records, and in the table.
    tables = read_tables(sound[mode])
    lengths = [
        *rng.integers(0, len(data), 25),
        *rng.integers(0, tables.data_begin, 15),
        *rng.integers(tables.data_end, len(data), 10),
    ]
    path = tmp_path / "a.beton"
    if with_manifest:
        manifest_path(path).write_bytes(manifest_path(sound[mode]).read_bytes())
    for length in lengths:
        path.write_bytes(data[:length])
        refuse(path)


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError in what waits too long, instead of waiting with it."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"still waiting after {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(sound, tmp_path):
    for name, path in special_files(tmp_path).items():
        with within(20):
            assert f"got a {name}" in refuse(path)
    beton = tmp_path / "a.beton"
    beton.write_bytes(sound["jpg"].read_bytes())
    os.mkfifo(manifest_path(beton))
    with within(20), pytest.raises(BetonError, match="expected a manifest, got a pipe"):
        open_beton(beton)


@pytest.mark.fault
def test_file_without_permission_is_refused(sound, tmp_path):
    path = tmp_path / "a.beton"
    path.write_bytes(sound["jpg"].read_bytes())
    path.chmod(0)
    # root may read everything, so become nobody, after the imports, which need rights, too.
    script = (
        "import os, sys; from pathlib import Path; from ffvit.data.tables import read_tables\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: read_tables(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert output == f"BetonError {path}: cannot read it (Permission denied).\n"


@pytest.mark.fault
def test_2000_flipped_bits_never_crash_never_show_another_image_and_are_all_found(sound):
    runs = []
    for seed, (mode, num_flips) in enumerate((("jpg", 1000), ("raw", 700), ("padded", 300))):
        command = [sys.executable, HERE / "flip_bits.py", sound[mode], str(num_flips), str(seed)]
        runs.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE))
    counts: dict[str, int] = {}
    try:
        for run in runs:
            output, _ = run.communicate(timeout=400)
            assert run.returncode == 0, f"killed by {signal.Signals(-run.returncode).name}"
            result = json.loads(output)
            assert result["violations"] == []
            counts = {
                outcome: counts.get(outcome, 0) + result["counts"].get(outcome, 0)
                for outcome in counts | result["counts"]
            }
    finally:
        for run in runs:
            run.kill()
    assert sum(counts.values()) == 2000
    # Each way out was taken, else this test tests little.
    for outcome, least in {
        "tables: refused without a manifest, too": 100,
        "tables: refused by the manifest alone": 100,
        "image: refused": 100,
        "image: pixels differ": 300,
        "padding: not seen": 50,
    }.items():
        assert counts[outcome] >= least, counts


@functools.cache
def stock_outcomes(folder: Path) -> dict[str, object]:
    """Let stock ffcv read the damaged betons, all in one go: ffcv takes seconds to import."""
    sound = write_sound(folder)
    cases = {"sound": ("whole", sound["jpg"]), "pipe": ("whole", folder / "pipe.beton")}
    os.mkfifo(folder / "pipe.beton")
    (folder / "folder.beton").mkdir()
    cases["folder"] = "whole", folder / "folder.beton"
    damages = {name: HOSTILE[name] for name in STOCK if name in HOSTILE}
    damages["erased begin"] = ("jpg", erase_begin(17))
    damages["flipped bit"] = ("jpg", flip_middle(17))
    for name, (mode, damage) in damages.items():
        path = folder / f"{name}.beton"
        decoder = "crop" if name == "raw image too high" else "whole"
        cases[name] = decoder, copy_damaged(sound[mode], path, damage, with_manifest=False)
    (folder / "unreadable.beton").touch(mode=0)
    cases["unreadable"] = "nobody", folder / "unreadable.beton"
    arguments = [str(part) for case in cases.values() for part in case]
    command = [sys.executable, str(HERE / "stock_reader.py"), str(STOCK_TIMEOUT_S), *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=True)
    outcomes = json.loads(result.stdout)
    return {name: outcomes[str(path)] for name, (_, path) in cases.items()}


# What stock ffcv makes of them; of the others test_stock_* ask more.
STOCK = {
    "empty": "raises IndexError",
    "foreign": "raises AssertionError",
    "aborted write": "hangs",
    "cut within the images": "raises ValueError",
    "cut within the table": None,
    "10 samples promised": None,
    "2^40 samples promised": "raises MemoryError",
    "pages of 0 bytes": "raises OverflowError",
    "pointer at another image": None,
    "raw image too large": None,
    "raw image too high": "hangs",
    "label of 2^40": None,
    "erased begin": None,
    "flipped bit": None,
    "pipe": "hangs",
    "folder": "raises IsADirectoryError",
    "unreadable": "raises PermissionError",
    "65535 fields promised": "raises KeyError",
    "table within the header": None,
}


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> dict[str, object]:
    return stock_outcomes(tmp_path_factory.mktemp("stock"))


@pytest.mark.fault
def test_stock_ffcv_crashes_hangs_or_raises(stock):
    expected = {name: outcome for name, outcome in STOCK.items() if outcome}
    assert {name: stock[name] for name in expected} == expected
    # It overwrites what lies behind its buffer: which of the two depends on what that is.
    assert stock["raw image too large"] in {"killed by SIGSEGV", "killed by SIGABRT"}


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "sample", "shown"), [("erased begin", 17, 7), ("pointer at another image", 3, 7)]
)
def test_stock_ffcv_shows_another_image_with_this_label(stock, name, sample, shown):
    sound, damaged = stock["sound"], stock[name]
    assert len({pixels for _, pixels in sound}) == NUM_SAMPLES  # all images differ
    assert damaged[sample][0] == sound[sample][0]
    assert damaged[sample][1] == sound[shown][1]


@pytest.mark.fault
def test_stock_ffcv_takes_silently_what_is_not_so(stock):
    sound = stock["sound"]
    assert stock["10 samples promised"] == sound[:10]
    # The sizes of the others are what lies in memory behind the table: often an earlier image.
    assert stock["cut within the table"][:19] == sound[:19]
    assert len(stock["cut within the table"]) == NUM_SAMPLES
    assert stock["table within the header"] == sound
    assert stock["label of 2^40"][3] == [1 << 40, sound[3][1]]
    assert stock["flipped bit"][17] != sound[17]


def test_sound_betons_are_sound(sound):
    for path in sound.values():
        assert verify_beton(path).findings == []
        assert load_manifest(path) is not None
