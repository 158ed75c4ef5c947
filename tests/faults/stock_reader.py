"""Stock ffcv 1.0.2 reads betons, each in a process of its own: what it does with damaged ones.

    python stock_reader.py TIMEOUT_S DECODER BETON [DECODER BETON ...]

DECODER is crop (the centre of each image), whole (images of one size), or nobody (whole, without
root's right to read everything). Prints one JSON object, {beton: outcome}; ffcv is imported once.
An outcome is "hangs", "killed by SIGSEGV", "raises ValueError" and the like, or a list: for each
sample its label and a hash of its pixels.
"""

import contextlib
import json
import os
import signal
import sys
import time
import zlib

import ffcv.loader
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.loader import OrderOption


def read(decoder: str, path: str) -> list[tuple[int, int]]:
    """Load every sample once, in order, as ffcv's documentation shows it."""
    if decoder == "nobody" and os.geteuid() == 0:
        os.setuid(65534)
    image = CenterCropRGBImageDecoder((32, 32), 1) if decoder == "crop" else SimpleRGBImageDecoder()
    pipelines = {"image": [image], "label": [IntDecoder()]}
    order = OrderOption.SEQUENTIAL
    loader = ffcv.loader.Loader(path, 2, num_workers=1, order=order, pipelines=pipelines)
    return [
        (int(label[0]), zlib.crc32(pixels.tobytes()))
        for images, labels in loader
        for pixels, label in zip(images, labels, strict=True)
    ]


def read_in_child(decoder: str, path: str, timeout_s: float) -> object:
    """Read in a fork of this process, and say what became of it."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            outcome: object = read(decoder, path)
        except BaseException as error:  # noqa: BLE001 - the outcome is the error
            outcome = f"raises {type(error).__name__}"
        with os.fdopen(theirs, "w") as pipe:
            json.dump(outcome, pipe)
        os._exit(0)
    os.close(theirs)
    deadline = time.monotonic() + timeout_s
    finished = status = 0
    while not finished and time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    if not finished:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "hangs"
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return json.loads(text)


if __name__ == "__main__":
    cases = list(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    with contextlib.redirect_stdout(sys.stderr):
        outcomes = {
            path: read_in_child(decoder, path, float(sys.argv[1])) for decoder, path in cases
        }
    json.dump(outcomes, sys.stdout)
