"""What stock ffcv 1.0.2 does in the places of test_loading.py: docs/reliability.md stays true.

Its pipelines are compiled in each process, so that many observations share one.
"""

import json
import shutil
import signal

import pytest
from loading_runs import STOCK, run_script, run_soundly, write_tables_of_imagenet

pytestmark = pytest.mark.fault

OBSERVED = (
    STOCK
    + """
import json, shutil
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from ffcv.fields import IntField, RGBImageField
from ffcv.loader import loader as loader_module
from ffcv.reader import Reader
from ffcv.traversal_order.base import TraversalOrder
from ffcv.writer import DatasetWriter
path, val_path, swapped_path, flat_path = sys.argv[1:]
seen = {}
def hangs(function, seconds=4):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
    return thread.is_alive()
def raises(function):
    try:
        function()
    except Exception as error:
        return type(error).__name__

loader = stock_loader(path)
kept = [tuple(labels.tolist()) for _, labels in list(loader)]
seen["distinct of 16 kept batches"] = len(set(kept))

def epoch_images(path):
    np.random.seed(0)
    torch.manual_seed(0)
    return torch.cat([images.clone() for images, _ in stock_loader(path)])
sound = epoch_images(path)
seen["same crops for the same seeds"] = bool((sound == epoch_images(path)).all())

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before, resident = threading.active_count(), resident_mb()
for _ in range(100):
    for _ in loader:
        pass
time.sleep(0.5)
seen["threads left by 100 epochs"] = threading.active_count() - before
seen["grows by over 10 MB in 100 epochs"] = resident_mb() - resident > 10

before = threading.active_count()
for _ in range(20):
    for _ in loader:
        break
seen["threads left by 20 early breaks"] = threading.active_count() - before

# Flat colours of 10 x index. Sample 12 is damaged; a buffer is used again five batches later.
class Flat:
    def __len__(self):
        return 16
    def __getitem__(self, index):
        return np.full((64, 64, 3), 10 * index, np.uint8), index
fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
DatasetWriter(flat_path, fields, num_workers=1).from_indexed_dataset(Flat())
with open(flat_path, "r+b") as file:
    file.seek(int(Reader(flat_path).metadata["f0"]["data_ptr"][12]))
    file.write(bytes(20))
shown = {int(labels[0]): round(float(images.float().mean()) / 10)
         for images, labels in stock_loader(flat_path, batch_size=1)}
seen["image shown for damaged sample 12"] = shown.pop(12)
assert all(image == label for label, image in shown.items())

# Replaced by the other file after it was opened and before the first epoch.
late = stock_loader(swapped_path)
labels = late.reader.metadata["f1"].tolist()
os.replace(val_path, swapped_path)
def read_swapped():
    shown = [label for _, batch in late for label in batch.tolist()]
    seen["labels after the swap are the old file's"] = shown == labels
seen["hangs after the swap"] = hangs(read_swapped)

counts = []
for rank in range(3):
    dist.init_process_group("fake", rank=rank, world_size=3, store=FakeStore())
    share = stock_loader(path, distributed=True, drop_last=False)
    counts.append(sum(len(labels) for _, labels in share))
    dist.destroy_process_group()
seen["images shown by 3 ranks of 64"] = sum(counts)

pipeline = [IntDecoder(), ToTensor()]
Loader(path, batch_size=4, num_workers=1, pipelines={"label": pipeline, "image": None})
seen["operations left in the caller's list of 2"] = len(pipeline)
class Reversed(TraversalOrder):
    def sample_order(self, epoch):
        return self.indices[::-1]
seen["an order of one's own"] = raises(lambda: stock_loader(path, order=Reversed(loader)))
seen["more workers than cores"] = raises(lambda: stock_loader(path, num_workers=10_000))

def after_the_end():
    iterator = iter(loader)
    for _ in iterator:
        pass
    next(iterator)
seen["next after the end hangs"] = hangs(after_the_end)
def broken(*_):
    raise OSError("disk on fire")
failing = stock_loader(path)
original = loader_module.EpochIterator.run_pipeline
loader_module.EpochIterator.run_pipeline = broken
threading.excepthook = lambda _: None
seen["an exception in its thread hangs"] = hangs(lambda: next(iter(failing)))
loader_module.EpochIterator.run_pipeline = original
from ffcv.transforms import NormalizeImage, ToTorchImage
mixed = [RandomResizedCropRGBImageDecoder((32, 32)), ToTensor(), ToTorchImage(),
         NormalizeImage(np.zeros(3), np.ones(3), np.float32)]
seen["compiled after uncompiled hangs the constructor"] = hangs(lambda: Loader(path, batch_size=4,
    num_workers=1, pipelines={"image": mixed, "label": None}))
print(json.dumps(seen), flush=True)
os._exit(0)
"""
)


@pytest.fixture
def betons(tiny_beton, tiny_val_beton, tmp_path):
    """Copies to be damaged: train, val, and train once more."""
    return [
        shutil.copy(source, tmp_path / f"{name}.beton")
        for name, source in (("train", tiny_beton), ("val", tiny_val_beton), ("swap", tiny_beton))
    ]


def test_stock_ffcv_as_observed(betons, tmp_path):
    seen = json.loads(run_soundly(OBSERVED, *betons, tmp_path / "flat.beton").splitlines()[-1])
    assert seen == {
        "distinct of 16 kept batches": 5,
        "same crops for the same seeds": False,
        "threads left by 100 epochs": 0,
        "grows by over 10 MB in 100 epochs": False,
        "threads left by 20 early breaks": 20,
        "image shown for damaged sample 12": 7,
        "labels after the swap are the old file's": True,
        "hangs after the swap": False,
        "images shown by 3 ranks of 64": 66,
        "operations left in the caller's list of 2": 1,
        "an order of one's own": "TypeError",
        "more workers than cores": "ValueError",
        "next after the end hangs": True,
        "an exception in its thread hangs": True,
        "compiled after uncompiled hangs the constructor": True,
    }


CUT = (
    STOCK
    + """
iterator = iter(stock_loader(sys.argv[1]))
next(iterator)
while not iterator.output_queue.full():
    time.sleep(0.05)
time.sleep(0.2)
os.truncate(sys.argv[1], 4096)
for _ in iterator:
    pass
"""
)


def test_stock_ffcv_is_killed_when_a_beton_is_cut_off(betons):
    assert run_script(CUT, betons[0]).status == -signal.SIGBUS


INTERLEAVED = (
    STOCK
    + """
for _ in zip(stock_loader(sys.argv[1], num_workers=2), stock_loader(sys.argv[2], num_workers=2)):
    pass
print("done")
"""
)


def test_stock_ffcv_aborts_when_two_loaders_share_the_work_queue(betons):
    outcome = run_script(INTERLEAVED, *betons[:2], NUMBA_THREADING_LAYER="workqueue")
    assert outcome.status == -signal.SIGABRT
    assert "not threadsafe" in outcome.stderr + outcome.stdout


FORKED = (
    STOCK
    + """
list(stock_loader(sys.argv[1], num_workers=2))
child = os.fork()
if child == 0:
    list(stock_loader(sys.argv[1], num_workers=2))
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
)


def test_stock_ffcvs_forked_child_is_killed_under_openmp(betons):
    outcome = run_script(FORKED, betons[0], NUMBA_THREADING_LAYER="omp")
    assert (outcome.status, outcome.stdout) == (0, f"{signal.SIGTERM:d}\n")  # the child's status
    assert "fork() called from a process already using GNU OpenMP" in outcome.stderr


MEMORY = (
    STOCK
    + """
import ctypes, gc
def held_mb():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
stock_loader(sys.argv[1])
before = held_mb()
loader = stock_loader(sys.argv[2], 1024)
print(held_mb() - before)
"""
)


def test_stock_ffcvs_tables_of_imagenet_need_hundreds_of_mb(betons, tmp_path):
    path = tmp_path / "imagenet.beton"
    write_tables_of_imagenet(path, betons[0], 1_281_167)
    assert float(run_soundly(MEMORY, betons[0], path)) > 400
