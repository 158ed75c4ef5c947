"""Training runs that start in a tenth of a second, to be killed by the dozen.

As a script, a server: it imports and compiles everything once, and forks a process per rank for
each run that it is told to start. It has started no thread that a fork would miss but the decoding
kernel's, which starts anew. As a module, the client.

The processes run what `train_imagenet.py` runs under `if __name__ == "__main__"`, with loaders made
before the fork, and without report and contact sheet.
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

RANKS_OF_WORLDS = ((0, 1), (0, 2), (1, 2))
TIMEOUT_S = 60


class Runs:
    """The client: starts runs, kills them, waits for them."""

    def __init__(self, config_path, launcher=()):
        """Start the server, through another program if one is given."""
        self._server = subprocess.Popen(
            [*launcher, sys.executable, __file__, str(config_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._server.pid
        assert self._server.stdout.readline() == '"ready"\n'

    def start(self, folder, world_size, *options, faults=()):
        """Start a run; return the pids of its ranks.

        Args:
            folder: The run folder; what rank r prints goes to `<folder>.rank<r>.txt`.
            world_size: 1 or 2.
            *options: As on the command line.
            faults: What goes wrong by itself, see `_arrange`.
        """
        return self._ask(folder=str(folder), world_size=world_size, options=options, faults=faults)

    def wait(self, pids):
        """Wait for the ranks of a run; return their statuses, -9 for one that was killed."""
        return self._ask(wait=pids)

    def run(self, folder, world_size, *options, faults=()):
        """Run to the end; return the ranks' statuses."""
        return self.wait(self.start(folder, world_size, *options, faults=faults))

    def close(self):
        """End the server, and with it all its runs."""
        self._server.stdin.close()
        self._server.wait(timeout=TIMEOUT_S)
        self._server.stdout.close()

    def _ask(self, **request):
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


def output(folder, rank=0):
    """Return what a rank of a run in this folder has printed, over all its starts."""
    return Path(f"{folder}.rank{rank}.txt").read_text()


def images_seen(folder):
    """Map each update of a run to the sorted checksums of the images of all ranks."""
    seen = {}
    for line in Path(f"{folder}.seen").read_text().splitlines():
        step, *checksums = json.loads(line)
        seen.setdefault(step, []).extend(checksums)
    return {step: sorted(checksums) for step, checksums in seen.items()}


def kill(pids):
    """End processes at once, if they still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _serve(config_path):
    import torch  # noqa: PLC0415 - the client needs none of this

    import train_imagenet  # noqa: PLC0415
    from ffvit import assembly  # noqa: PLC0415
    from ffvit.config import load_train_config  # noqa: PLC0415
    from ffvit.distributed import Ranks  # noqa: PLC0415

    config, _ = load_train_config([f"--config={config_path}"])
    loaders = {}
    for rank, world_size in RANKS_OF_WORLDS:
        ranks = Ranks(rank, rank, world_size, world_size, torch.device("cpu"))
        loaders[rank, world_size] = assembly.create_loaders(config, 32, ranks)
        for loader in loaders[rank, world_size]:
            next(iter(loader))  # compiles
            loader.close()
    assembly.create_loaders = lambda _1, _2, ranks: loaders[ranks.rank, ranks.world_size]
    train_imagenet.report = lambda *_: None
    train_imagenet.save_contact_sheet = lambda *_: None
    sys.stdout.write('"ready"\n')
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = [_status(pid) for pid in request["wait"]]
        else:
            answer = _fork(config_path, request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _fork(config_path, request):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = []
    for rank in range(request["world_size"]):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = _run(config_path, request, rank, port)
            finally:
                os._exit(status)
        pids.append(pid)
    return pids


def _run(config_path, request, rank, port):
    """Be one rank; return the exit status."""
    import train_imagenet  # noqa: PLC0415
    from ffvit.config import load_train_config  # noqa: PLC0415
    from ffvit.distributed import join_ranks  # noqa: PLC0415
    from ffvit.errors import one_line_errors  # noqa: PLC0415

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the server
    out = os.open(f"{request['folder']}.rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    world_size = str(request["world_size"])
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world_size}
    os.environ |= {"LOCAL_WORLD_SIZE": world_size}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for fault in request["faults"]:
        if rank in fault.get("ranks", (0, 1)):
            _arrange(fault)
    _record_images(f"{request['folder']}.seen")
    try:
        with one_line_errors():
            options = [f"--config={config_path}", *request["options"]]
            config, _ = load_train_config(options)
            with join_ranks(config.run.timeout_s) as ranks:
                train_imagenet.main(config, Path(request["folder"]), ranks)
    except SystemExit as stop:
        return stop.code
    return 0


def _arrange(fault):
    """Let something go wrong at a call of a function.

    Args:
        fault: `place` (fsync, update, measure), `call` (from 1; 0: each), and what happens before
            that call: `signal` (its number, sent to itself) or `fill` (a file that takes all the
            room of its disk). `ranks`: where.
    """
    from ffvit.trainer import Trainer  # noqa: PLC0415

    places = {
        "fsync": (os, "fsync"),
        "update": (Trainer, "_update"),
        "measure": (Trainer, "_measure"),
    }
    owner, name = places[fault["place"]]
    original, calls = getattr(owner, name), []

    def broken(*arguments, **options):
        calls.append(1)
        if fault["call"] in (0, len(calls)):
            if "fill" in fault:
                _fill_disk(fault["fill"])
            else:
                os.kill(os.getpid(), fault["signal"])
        return original(*arguments, **options)

    setattr(owner, name, broken)


def _fill_disk(path):
    with open(path, "ab", buffering=0) as file, contextlib.suppress(OSError):  # noqa: PTH123
        while True:
            file.write(bytes(4096))


def _record_images(path):
    """Write the checksums of the images of each update, one line per micro-batch."""
    from ffvit.data.augment import Augmentation  # noqa: PLC0415
    from ffvit.trainer import Trainer  # noqa: PLC0415

    update, augment, step = Trainer._update, Augmentation.__call__, []

    def recording_update(self, *arguments):
        step[:] = [self.step]
        loss = update(self, *arguments)
        step.clear()
        return loss

    def recording_augment(self, batch, epoch):
        if step:
            checksums = [zlib.crc32(image.numpy().tobytes()) for image in batch.images]
            with open(path, "a") as file:  # noqa: PTH123
                file.write(json.dumps([*step, *checksums]) + "\n")
        return augment(self, batch, epoch)

    Trainer._update, Augmentation.__call__ = recording_update, recording_augment


def _status(pid):
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    random.seed(0)
    _serve(sys.argv[1])
