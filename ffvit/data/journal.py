"""What an unfinished beton holds, noted beside it while it is written: the key to `--resume`.

A file of lines, each a checksum and a JSON object. The first says what is written (the identity),
the others which images have been handed to the system since. Neither file is flushed to the disk on
the way: after a crash of the machine their ends may be lost, in any order. That costs time and no
more, as whoever goes on believes a line only if its checksum fits, and an image only if its bytes
are there and fit the checksum that the line tells.
"""

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from ffvit.data.beton_file import ImageRecord
from ffvit.data.images import SkippedImage
from ffvit.data.progress import say
from ffvit.errors import BetonError

# What became of one image of the source.
Entry = ImageRecord | SkippedImage

# Of file systems of clusters that are mounted without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Journal:
    """The journal of one write; it locks out other writers of the same beton while it is open.

    A lock ends with its process, however that ends, and is not inherited by workers.

    Args:
        path: The journal's file.
        beton: What is to be written, for messages.
        identity: All that the beton's bytes depend on; JSON values.
        resume: Go on with the journal that an interrupted write has left, if there is one.

    Attributes:
        entries: What the interrupted write has done, in order.
        num_entries: Images of the source that it knows of.

    Raises:
        BetonError: Another process is writing this beton, or the interrupted write was of something
            else; says what differs.
        OSError: From every method: the file cannot be written.
    """

    def __init__(self, path: Path, beton: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self._path = path
        self._beton = beton
        self._pending: list[Entry] = []
        self._file = _open_locked(path, beton)
        try:
            self.entries = self._begin(identity, resume)
        except BaseException:
            self.close()
            if not resume:
                path.unlink()
            raise
        self.num_entries = len(self.entries)

    def _begin(self, identity: Mapping[str, Any], resume: bool) -> list[Entry]:
        lines = _sound_lines(self._file.readall() if resume else b"")
        end, first = next(lines, (0, {}))
        entries: list[Entry] = []
        for end, line in lines:  # noqa: B007 - the last one counts
            if "cut" in line:
                del entries[line["cut"] :]
            else:
                entries += [_entry(values) for values in line["entries"]]
        if first:
            self._check_identity(first["identity"], identity)
        # Behind a torn line nothing would be found.
        self._file.truncate(end)
        self._file.seek(end)
        if not first:
            self._write({"identity": identity})
        return entries

    def _check_identity(self, begun: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(identity))
        if begun != wanted:
            differences = ", ".join(_differences(begun, wanted))
            raise BetonError(
                f"{self._beton}: cannot go on with its interrupted write, as this one is another "
                f"({differences}); use the same options, source and versions, or leave --resume "
                "away to write it from the start."
            )

    def cut(self, num_entries: int) -> None:
        """Take back all entries but so many."""
        self._write({"cut": num_entries})
        self.num_entries = num_entries

    def add(self, entry: Entry) -> None:
        """Note an image; `commit` writes it down."""
        self._pending.append(entry)
        self.num_entries += 1

    def commit(self) -> None:
        """Write down what was added; to be called when the system has the images' bytes."""
        if self._pending:
            self._write({"entries": self._pending})
            self._pending = []

    def remove(self) -> None:
        """Delete the file; the lock ends with `close`."""
        self._path.unlink()

    def close(self) -> None:
        """Close the file and let other writers in."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line).encode()
        data = b"%08x %s\n" % (zlib.crc32(text), text)
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open_locked(path: Path, beton: Path) -> FileIO:
    while True:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")
        try:
            # Not flock: workers would inherit it, and outlive a killed writer for a moment.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.close()
                raise BetonError(
                    f"{beton}: another process is writing it; wait until it is done, or end it."
                ) from None
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            say(f"{beton}: this file system has no locks; see that no other process writes it")
        try:
            is_current = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            is_current = False
        if is_current:
            return file
        file.close()  # the writer before us removed it in between


def _sound_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (end of the line, its object) up to the first line that is torn or damaged."""
    begin = 0
    while (end := data.find(b"\n", begin) + 1) > 0:
        checksum, _, text = data[begin : end - 1].partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            return
        yield end, json.loads(text)
        begin = end


def _entry(values: Sequence[Any]) -> Entry:
    if len(values) == len(ImageRecord._fields):
        return ImageRecord(*values)
    return SkippedImage(*values)


def _differences(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Say where two identities differ: `max_side was 400, is 500`."""
    for key in sorted(begun.keys() | wanted.keys()):
        then, now = begun.get(key), wanted.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            yield from _differences(then, now)
        elif then != now:
            yield f"{key} was {then}, is {now}"
