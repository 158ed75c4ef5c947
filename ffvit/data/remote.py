"""Betons at URLs: copied to a local disk once per machine, checked there, and read from there.

Any URL that fsspec knows: s3://, gs://, hf://, https://, file:// (a network disk). Training reads a
beton in random order, some thousand small pieces a second, which no object store answers; so the
whole file is copied first. Processes of one machine wait for the one that copies; an interrupted
copy goes on where it ended.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ffvit.data.engine import check_room, partial_path
from ffvit.data.manifest import manifest_path
from ffvit.data.progress import Progress, say
from ffvit.data.verify import verify_beton
from ffvit.errors import BetonError, ConfigError, UserError, printable

# What a request asks for, and requests under way: one alone fills no fast network.
_PART_BYTES = 16 << 20
_NUM_REQUESTS = 8
# What file systems call the version of a file; those that are there are compared.
_VERSION_KEYS = (
    "ETag",
    "etag",
    "VersionId",
    "md5Hash",
    "crc32c",
    "generation",
    "blob_id",
    "LastModified",
    "last_modified",
    "mtime",
)


def is_url(path: str) -> bool:
    """Tell a URL from the name of a file."""
    return "://" in path


def stage(url: str, folder: Path) -> Path:
    """Copy a beton and its manifest to a local disk, unless they are there already.

    Args:
        url: Of the beton; the manifest is looked for beside it.
        folder: On a local disk; made if it is missing.

    Returns:
        The copy, every byte of which was compared with its manifest, and every image decoded, when
        it was made.

    Raises:
        BetonError: Nothing there, no way to it, damaged, or no room for it.
        ConfigError: A package that this kind of URL needs is missing.
    """
    with _remote_errors(url):
        import fsspec  # noqa: PLC0415 - an optional extra

        files, remote = fsspec.core.url_to_fs(url)
        info = files.info(remote)
        if info["type"] != "file":
            raise BetonError(f"{url}: expected a beton, got a {info['type']}; name the file.")
        manifest = files.cat_file(f"{remote}.json") if files.exists(f"{remote}.json") else b""
    origin = {
        "url": url,
        "num_bytes": int(info["size"]),
        "version": {key: str(info[key]) for key in _VERSION_KEYS if key in info},
        "manifest_crc32": zlib.crc32(manifest),
    }
    # Two betons of one name from different places must not take turns.
    place = hashlib.sha256(url.encode()).hexdigest()[:12]
    path: Path = folder / place / remote.rsplit("/", 1)[-1]
    with _write_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path):
            if not _is_copy(path, origin):
                _copy(files, remote, url, path, origin, manifest)
    return path


def expand(url: str) -> list[str]:
    """List the URLs that fit a pattern, sorted; one without a wildcard stands for itself.

    Raises:
        BetonError: None fits, or there is no way to them.
        ConfigError: As from `stage`.
    """
    if "*" not in url:
        return [url]
    with _remote_errors(url):
        import fsspec  # noqa: PLC0415 - an optional extra

        files, pattern = fsspec.core.url_to_fs(url)
        found = sorted(files.unstrip_protocol(name) for name in files.glob(pattern))
    if not found:
        raise BetonError(f"{url}: expected betons, but no file fits this pattern.")
    return found


def default_folder() -> Path:
    """Return a folder of this user's own in $TMPDIR or /tmp.

    Raises:
        ConfigError: It belongs to somebody else.
    """
    folder = Path(tempfile.gettempdir()) / f"ffvit-betons-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise ConfigError(f"{folder}: belongs to somebody else; set data.stage_dir.")
    return folder


def _is_copy(path: Path, origin: dict[str, Any]) -> bool:
    """Tell whether a file is the copy that these words describe."""
    if _noted_origin(path) != origin or not path.exists():
        return False
    manifest = manifest_path(path).read_bytes() if manifest_path(path).exists() else b""
    found = path.stat().st_size, zlib.crc32(manifest)
    return found == (origin["num_bytes"], origin["manifest_crc32"])


def _copy(
    files: Any, remote: str, url: str, path: Path, origin: dict[str, Any], manifest: bytes
) -> None:
    """Copy, verify, and put into place."""
    size = origin["num_bytes"]
    partial = partial_path(path)
    is_begun = partial.exists() and _noted_origin(partial) == origin
    begin = min(partial.stat().st_size, size) if is_begun else 0
    check_room(path, size, "free some, or set data.stage_dir to another disk")
    say(f"{url}: copying {size / 1e6:,.1f} MB to {path}" + (", the rest of it" if begin else ""))
    _origin_path(partial).write_text(json.dumps(origin))
    with partial.open("r+b" if begin else "wb") as file:
        file.seek(begin)
        file.truncate()
        with Progress(size, path.name, begin, is_bytes=True) as progress:
            parts = _parts(files, remote, url, begin, size)
            for part in progress.count(parts, len):
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if manifest:
        manifest_path(partial).write_bytes(manifest)
    else:
        say(f"{url}: has no manifest, so there are no checksums to compare its copy with")
        manifest_path(partial).unlink(missing_ok=True)
    try:
        problems = [finding.reason for finding in verify_beton(partial).findings]
    except BetonError as error:
        problems = [str(error)]
    if problems:
        for left in (partial, manifest_path(partial), _origin_path(partial)):
            left.unlink(missing_ok=True)
        raise BetonError(
            f"{url}: its copy is damaged ({len(problems)} problems, the first: {problems[0]}); try "
            "again, and if it stays so, write or upload it again."
        )
    _origin_path(path).unlink(missing_ok=True)  # of the copy before
    partial.replace(path)
    if manifest:
        manifest_path(partial).replace(manifest_path(path))
    else:
        manifest_path(path).unlink(missing_ok=True)
    _origin_path(partial).replace(_origin_path(path))


def _parts(files: Any, remote: str, url: str, begin: int, size: int) -> Iterator[bytes]:
    """Read a file from `begin` to its end, several parts at a time; they come in their order."""
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool, _remote_errors(url):
        try:
            for start in range(begin, size, _PART_BYTES):
                end = min(start + _PART_BYTES, size)
                pending.append(pool.submit(_part, files, remote, start, end))
                if len(pending) > _NUM_REQUESTS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for part in pending:
                part.cancel()


def _part(files: Any, remote: str, start: int, end: int) -> bytes:
    data: bytes = files.cat_file(remote, start=start, end=end)
    if len(data) != end - start:
        raise OSError(f"{len(data)} instead of {end - start} bytes at {start}")
    return data


def _origin_path(path: Path) -> Path:
    """Return where it is noted what a file is the copy of."""
    return path.with_name(f"{path.name}.origin")


def _noted_origin(path: Path) -> Any:
    try:
        return json.loads(_origin_path(path).read_bytes())
    except (OSError, ValueError):  # none, or one that was not written to its end
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time copy to a path; the lock ends with its process."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                say(f"{path}: waiting for the process that copies it")
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    """Turn what a file system of somebody else's raises, which is anything, into one line."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except ImportError as error:
        raise ConfigError(
            f"{url}: expected the packages for such URLs, got {error}; "
            "python -m pip install fsspec, and s3fs for s3://, gcsfs for gs://, huggingface_hub "
            "for hf://."
        ) from None
    except FileNotFoundError:
        raise BetonError(f"{url}: expected a beton, found nothing; check the URL.") from None
    except Exception as error:
        reason = printable(" ".join(str(error).split()))
        raise BetonError(
            f"{url}: cannot read it ({type(error).__name__}: {reason:.200}); check the URL, the "
            "network and your credentials.",
            is_local=True,
        ) from error


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BetonError(
            f"{path}: cannot write it ({error.strerror or error}); check data.stage_dir, its space "
            "and rights.",
            is_local=True,
        ) from None
