"""Samples, and samplers, that fail: heard in their place, counted, and nothing else lost."""

import gc
import io
import multiprocessing
import os
import resource
import threading

import pytest
import torch
from PIL import Image

import penstock
from penstock.datasets import ImageDataset
from penstock.errors import SerializationError, TooManySkippedError
from tests.faults.deliveries import ids, loader_of, variant, wait_until
from tests.faults.roles import Numbers, whole

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
REPLACED = 1000


def take_all(loader):
    """The batches of an epoch, and the errors in the place of others."""
    batches = iter(loader)
    taken = []
    while True:
        try:
            taken.append(next(batches))
        except StopIteration:
            return taken
        except Exception as error:
            taken.append(error)


def check_one_failed(taken):
    """The second batch of all is an error, which is returned, and the others are there."""
    assert [isinstance(each, Exception) for each in taken] == [at == 1 for at in range(10)]
    good = [batch for batch in taken if not isinstance(batch, Exception)]
    assert ids(good) == [index for index in range(LENGTH) if index // 4 != 1]
    return taken[1]


class Reader:
    def __init__(self):
        self.handle = threading.Lock()


class HoldsLock(Numbers):
    def __init__(self):
        super().__init__(LENGTH)
        self.reader = Reader()


def test_row_27_a_dataset_that_cannot_be_pickled(start_method):
    dataset = HoldsLock()
    loader = loader_of(dataset, start_method)
    if start_method != "fork":
        with pytest.raises(SerializationError, match=r"^dataset\.reader\.handle, of type lock"):
            iter(loader)
        dataset.reader = None
    assert ids(loader) == list(range(LENGTH))


class ReadsItsIndex(Numbers):
    def __getstate__(self):
        raise FileNotFoundError(2, "No such file or directory", "/data/index")


def test_row_27_a_dataset_whose_pickling_fails_as_the_system_does(start_method):
    loader = loader_of(ReadsItsIndex(LENGTH), start_method)
    if start_method == "fork":
        assert ids(loader) == list(range(LENGTH))
        return
    with pytest.raises(SerializationError, match=r"cannot be sent .*'/data/index'") as caught:
        iter(loader)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


class GivesLock(Numbers):
    def __getitem__(self, index):
        sample = {"index": index, "reader": {"handle": None}}
        if index == 5:
            sample["reader"]["handle"] = threading.Lock()
        return sample


def as_list(samples):
    return samples


def test_row_27_a_sample_that_cannot_be_pickled(start_method):
    loader = loader_of(GivesLock(LENGTH), start_method, collate_fn=as_list)
    taken = take_all(loader)
    error = taken.pop(1)
    assert isinstance(error, SerializationError)
    assert "batch[1]['reader']['handle'], of type lock" in str(error)
    arrived = [sample["index"] for batch in taken for sample in batch]
    assert arrived == [index for index in range(LENGTH) if index // 4 != 1]
    assert loader.statistics().restarts == 0


def unpickle_elsewhere(pid):
    if os.getpid() != pid:
        raise LookupError("this is of the process that made it")
    return "here"


class StaysHere:
    """Can be unpickled where it was made alone."""

    def __reduce__(self):
        return unpickle_elsewhere, (os.getpid(),)


class GivesWhatStays(Numbers):
    def __getitem__(self, index):
        return index, StaysHere() if index == 5 else None


def test_row_27_an_error_where_a_batch_is_unpickled(start_method):
    loader = loader_of(GivesWhatStays(LENGTH), start_method, collate_fn=as_list)
    taken = take_all(loader)
    error = taken.pop(1)
    assert isinstance(error, SerializationError)
    assert "LookupError: this is of the process that made it" in str(error)
    arrived = [index for batch in taken for index, _ in batch]
    assert arrived == [index for index in range(LENGTH) if index // 4 != 1]
    assert loader.statistics().restarts == 0


class NeedsTwo(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, path, line):
        super().__init__(f"{path}: line {line}")


class HoldsLive(Exception):
    """Cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class RaisesStrangely(Numbers):
    def __init__(self, kind):
        super().__init__(LENGTH)
        self.kind = kind

    def __getitem__(self, index):
        if index == 5:
            self.fail_at_five()
        return whole(index)

    def fail_at_five(self):
        if self.kind == "init":
            raise NeedsTwo("annotations.csv", 7)
        raise HoldsLive("the connection is lost")


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("init", "NeedsTwo", "annotations.csv: line 7"),
        ("live", "HoldsLive", "the connection is lost"),
    ],
)
def test_row_28_an_exception_that_cannot_travel(start_method, kind, name, text):
    loader = loader_of(RaisesStrangely(kind), start_method)
    error = check_one_failed(take_all(loader))
    told = str(error)
    assert name in told
    assert text in told
    assert "in fail_at_five" in told
    assert isinstance(error.__cause__, penstock.SampleError)
    assert error.__cause__.index == 5
    assert loader.statistics().restarts == 0


class Mixed(Numbers):
    """One sample that is not like the others."""

    def __init__(self, kind):
        super().__init__(LENGTH)
        self.kind = kind

    def __getitem__(self, index):
        if index == 5:
            if self.kind == "exception":
                raise ValueError("it is bad")
            if self.kind == "None":
                return None
            if self.kind == "shape":
                return torch.zeros(3, dtype=torch.int32)
            if self.kind == "dtype":
                return whole(index).double()
        return whole(index)


def replace(error):
    assert error.index == 5
    return whole(REPLACED)


@pytest.mark.parametrize(("kind", "error"), [("exception", ValueError), ("None", TypeError)])
def test_row_29_one_bad_sample_among_good_ones(start_method, kind, error):
    variant(start_method, main=kind == "exception")

    def epoch(on_error):
        loader = loader_of(Mixed(kind), start_method, on_error=on_error, max_skipped=1)
        return loader, take_all(loader)

    loader, taken = epoch("raise")
    raised = check_one_failed(taken)
    assert isinstance(raised, error)
    assert raised.__cause__.index == 5

    loader, taken = epoch("skip")
    # The last sample takes its place, and there are as many steps.
    assert len(taken) == 10
    assert ids(taken) == [0, 1, 2, 3, 4, 39, *range(6, 39)]
    assert [skipped.index for skipped in loader.skipped] == [5]
    assert isinstance(loader.skipped[0].cause, error)
    assert loader.statistics().skipped == 1

    loader, taken = epoch(replace)
    assert len(taken) == 10
    assert ids(taken) == [0, 1, 2, 3, 4, REPLACED, *range(6, LENGTH)]
    assert loader.skipped == []


@pytest.mark.parametrize("on_error", ["raise", "skip", replace])
def test_row_29_a_sample_of_another_shape_fails_its_batch(start_method, on_error):
    variant(start_method, main=on_error == "skip")
    loader = loader_of(Mixed("shape"), start_method, on_error=on_error)
    # Which of the samples is the odd one is for nobody but the program to say.
    error = check_one_failed(take_all(loader))
    assert isinstance(error, RuntimeError)
    assert "stack expects each tensor to be equal size" in str(error)
    assert "for batch 1, 4 samples" in str(error)
    assert loader.skipped == []


def test_row_29_a_sample_of_another_dtype_makes_its_batch_that_of_torch(start_method):
    loader = loader_of(Mixed("dtype"), start_method)
    taken = take_all(loader)
    assert ids(taken) == list(range(LENGTH))
    odd = torch.float64
    assert [batch.dtype for batch in taken] == [odd if at == 1 else torch.int32 for at in range(10)]


class AllBad(Numbers):
    def __getitem__(self, index):
        raise ValueError(f"{index} is bad")


@pytest.mark.parametrize("limit", [3, 0.1])
def test_row_30_every_sample_is_bad(start_method, limit):
    variant(start_method, main=limit == 3)
    loader = loader_of(AllBad(LENGTH), start_method, on_error="skip", max_skipped=limit)
    most = 3 if limit == 3 else 4
    with pytest.raises(TooManySkippedError) as caught:
        list(loader)
    assert len(caught.value.skipped) == most + 1
    assert loader.statistics().batches == 0
    assert loader.statistics().restarts == 0


@pytest.mark.parametrize("on_error", ["skip", lambda error: "raise"])
def test_row_30_an_iterator_is_dropped_that_would_stop_next(on_error, start_method):
    variant(start_method, main=on_error == "skip")
    loader = loader_of(AllBad(LENGTH), start_method, on_error=on_error, max_skipped=0)
    batches = iter(loader)
    wait_until(lambda run=batches: run._source._turn(0.0) or run._source._scheduler.ready)
    gc.collect()
    gc.disable()
    try:
        del batches
        # At once: nobody is to wait for the garbage collector.
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


class BreaksOff:
    """A sampler that raises midway."""

    def __init__(self, at):
        self.at = at

    def __iter__(self):
        for index in range(LENGTH):
            if index == self.at:
                raise LookupError("the index file ends here")
            yield index

    def __len__(self):
        return LENGTH


@pytest.mark.parametrize("persistent", [False, True])
def test_row_32_a_sampler_that_raises_midway(start_method, persistent):
    variant(start_method, main=persistent)
    sampler = BreaksOff(at=22)
    loader = loader_of(
        Numbers(LENGTH, pause_s=0.001), start_method, sampler=sampler, persistent_workers=persistent
    )
    batches = iter(loader)
    arrived = ids(next(batches) for _ in range(5))
    with pytest.raises(LookupError, match="the index file ends here"):
        next(batches)
    assert arrived == list(range(20))
    sampler.at = None
    assert ids(loader) == list(range(LENGTH))


# Files.

BOMBS = {2, 3, 11}
BROKEN = {5, 17}


def photos(folder):
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    good, bomb = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise).save(good, "PNG")
    # 800 MB once it is decoded to RGB, and 50 kB on disk.
    Image.new("1", (16_000, 16_000)).save(bomb, "PNG")
    for number in range(24):
        content = bomb.getvalue() if number in BOMBS else good.getvalue()
        if number in BROKEN:
            content = content[: len(content) // 2]
        (folder / f"{number:02}.png").write_bytes(content)
    return folder


class Measured(ImageDataset):
    """Images, and the most memory that their worker has had by then, in bytes."""

    def __getitem__(self, index):
        _, number = super().__getitem__(index)
        return number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_row_36_image_bombs_and_truncated_files(start_method, tmp_path):
    dataset = Measured(photos(tmp_path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    loader = loader_of(dataset, start_method, on_error="skip", max_skipped=5)
    numbers, peaks = [], []
    for number, peak in loader:
        numbers += number.tolist()
        peaks += peak.tolist()
    assert sorted(numbers) == sorted(set(range(24)) - BOMBS - BROKEN)
    skipped = {error.index: error for error in loader.skipped}
    assert skipped.keys() == BOMBS | BROKEN
    for index, error in skipped.items():
        expected = Image.DecompressionBombError if index in BOMBS else OSError
        assert isinstance(error.cause, expected)
        assert f"{index:02}.png" in str(error)
    # Far from what one bomb would take; a forked worker begins with what its parent had.
    assert max(peaks) < before + (256 << 20)
    assert loader.statistics().restarts == 0
