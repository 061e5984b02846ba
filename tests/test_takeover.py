"""Torch's own loaders, run by penstock: what changes, and above all what does not."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    SubsetRandomSampler,
)
from torch.utils.data.dataloader import _BaseDataLoaderIter, _SingleProcessDataLoaderIter
from torch.utils.data.datapipes.iter import IterableWrapper

import penstock
from penstock.epoch import EpochRun
from penstock.takeover import PlaceReport, Report
from tests.support.split import own_part

SOURCES = str(Path(penstock.__file__).parents[1])
# As they were imported: long before anything is installed.
ORIGINALS = {name: vars(DataLoader)[name] for name in ("__init__", "__iter__")}


class Numbers:
    def __init__(self, size: int = 20) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(own_part(20))


class Mine(DataLoader):
    """As people write them: with attributes that mean something else to penstock."""

    def __init__(self, dataset, seed, **options):
        self.seed = seed
        super().__init__(dataset, **options)
        self._engine = "steam"

    def __len__(self):
        return 7

    def __iter__(self):
        for batch in super().__iter__():
            yield batch + 100


class OwnIterator(DataLoader):
    def _get_iterator(self):
        return _SingleProcessDataLoaderIter(self)


def make_by_default_argument(make=DataLoader, **options):
    return make(Numbers(), **options)


@pytest.fixture(autouse=True)
def nothing_installed():
    yield
    penstock.uninstall()
    assert {name: vars(DataLoader)[name] for name in ORIGINALS} == ORIGINALS


def is_by_penstock(loader) -> bool:
    return isinstance(DataLoader.__iter__(loader), EpochRun)


def only_place(taken) -> PlaceReport:
    (place,) = taken.report().places
    return place


def lists(loader) -> list:
    return [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in loader]


def samples(loader) -> list:
    return [sample for batch in lists(loader) for sample in batch]


# Which loaders, and when.


def test_a_name_that_was_imported_before_means_loaders_by_penstock():
    assert isinstance(iter(DataLoader(Numbers())), _BaseDataLoaderIter)
    penstock.install()
    assert is_by_penstock(DataLoader(Numbers()))
    assert is_by_penstock(torch.utils.data.DataLoader(Numbers()))
    assert is_by_penstock(torch.utils.data.dataloader.DataLoader(Numbers()))
    assert is_by_penstock(make_by_default_argument())
    assert is_by_penstock(DataLoader[int](Numbers()))
    penstock.uninstall()
    assert isinstance(iter(DataLoader(Numbers())), _BaseDataLoaderIter)


def test_a_loader_that_was_made_before_has_its_next_epoch_by_penstock():
    loader = DataLoader(Numbers(), batch_size=8)
    before = lists(loader)
    with penstock.install() as taken:
        line = sys._getframe().f_lineno + 1
        assert [batch.tolist() for batch in loader] == before
    place = only_place(taken)
    assert (place.place.file, place.place.line) == (__file__, line)
    assert place.place.iterated
    assert (place.loaders, place.epochs, place.batches, place.samples) == (1, 1, 3, 20)


def test_all_loaders_stay_what_their_types_say():
    before = DataLoader(Numbers())
    with penstock.install():
        after, derived = DataLoader(Numbers()), Mine(Numbers(), seed=None)
        ours = penstock.DataLoader(Numbers(), seed=3)

        class Late(DataLoader):
            pass

        late = Late(Numbers())
        for loader in (before, after, derived, ours, late):
            assert isinstance(loader, torch.utils.data.DataLoader)
        assert type(before) is type(after) is DataLoader
        assert type(derived) is Mine
        assert type(late) is Late
        assert is_by_penstock(late)
        assert type(ours) is penstock.DataLoader
        assert ours.seed == 3


def test_a_class_of_the_user_s_own_keeps_what_it_defines_and_gets_its_batches_from_penstock():
    with penstock.install() as taken:
        loader = Mine(Numbers(4), seed="of love", batch_size=2, num_workers=1)
        assert lists(loader) == [[100, 101], [102, 103]]
        assert len(loader) == 7
        assert (loader.seed, loader._engine) == ("of love", "steam")
        assert is_by_penstock(loader)
    assert only_place(taken).epochs == 2


def test_penstock_s_own_loaders_are_left_alone():
    with penstock.install() as taken:
        assert lists(penstock.DataLoader(Numbers(4), batch_size=2)) == [[0, 1], [2, 3]]
    assert taken.report() == Report(())


def test_a_loader_that_was_pickled_knows_nothing_of_penstock():
    with penstock.install():
        loader = DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers=True)
        want = lists(loader)
        pickled = pickle.dumps(loader)
        assert lists(pickle.loads(pickled)) == want
    assert b"penstock" not in pickled
    assert type(pickle.loads(pickled)) is DataLoader


# The same batches.


def as_list(samples):
    return [int(sample) for sample in samples]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3, "shuffle": True},
        {"batch_size": 3, "shuffle": True, "drop_last": True},
        {"batch_size": 3, "sampler": SubsetRandomSampler(range(5, 15))},
        {"batch_sampler": BatchSampler(SequentialSampler(range(20)), 6, drop_last=False)},
        {"batch_size": None, "shuffle": True},
        {"batch_size": 4, "collate_fn": as_list},
        {"batch_size": 4, "shuffle": True, "generator": torch.Generator()},
        {"batch_size": 4, "stream": True},
        {"batch_size": 4, "stream": True, "drop_last": True},
        {"batch_size": None, "stream": True},
    ],
)
def test_the_batches_and_the_random_numbers_used_are_those_of_torch(options, workers):
    options = dict(options)
    dataset = Stream() if options.pop("stream", False) else Numbers()

    def two_epochs():
        torch.manual_seed(7)
        if "generator" in options:
            options["generator"].manual_seed(8)
        loader = DataLoader(dataset, num_workers=workers, **options)
        return [lists(loader), lists(loader)], torch.get_rng_state().tolist()

    by_torch = two_epochs()
    with penstock.install() as taken:
        assert two_epochs() == by_torch
    assert only_place(taken).epochs == 2


@pytest.mark.usefixtures("no_leaks")
def test_every_start_method_is_taken_over(start_method):
    with penstock.install() as taken:
        loader = DataLoader(
            Numbers(), batch_size=4, num_workers=2, multiprocessing_context=start_method
        )
        assert samples(loader) == list(range(20))
        del loader
    place = only_place(taken)
    assert (place.epochs, place.workers, place.restarts, place.left) == (1, 2, 0, {})


def test_what_a_loader_is_given_between_two_epochs_holds_from_the_next():
    with penstock.install():
        loader = DataLoader(Numbers(4), batch_size=4, num_workers=1)
        assert lists(loader) == [[0, 1, 2, 3]]
        loader.collate_fn = as_list
        loader.num_workers = 0
        assert next(iter(loader)) == [0, 1, 2, 3]


# Persistent workers.


class Pids(Numbers):
    def __getitem__(self, index):
        return os.getpid()


@pytest.mark.usefixtures("no_leaks")
def test_persistent_workers_serve_every_epoch_and_leave_with_penstock():
    with penstock.install():
        loader = DataLoader(Pids(), batch_size=5, num_workers=1, persistent_workers=True)
        (first,), (second,) = (set(samples(loader)) for _ in range(2))
        assert first == second
        assert psutil.pid_exists(first)
    assert not psutil.pid_exists(first)
    # torch starts its own.
    assert first not in samples(loader)
    del loader


@pytest.mark.usefixtures("no_leaks")
def test_an_iterator_outlives_its_loader():
    with penstock.install():
        iterator = iter(DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers=True))
        gc.collect()
        assert samples(iterator) == list(range(20))
        del iterator


@pytest.mark.usefixtures("no_leaks")
def test_an_epoch_that_has_begun_ends_as_it_began():
    loader = DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers=True)
    with penstock.install():
        iterator = iter(loader)
        begun = next(iterator).tolist()
    assert begun + samples(iterator) == list(range(20))
    assert isinstance(iter(loader), _BaseDataLoaderIter)
    del loader, iterator


def test_persistent_workers_of_torch_s_stay_torch_s():
    loader = DataLoader(Pids(), batch_size=20, num_workers=1, persistent_workers=True)
    before = lists(loader)
    with penstock.install() as taken:
        assert lists(loader) == before
    assert [reason for reason in only_place(taken).left if "from before" in reason]


# What penstock refuses, or cannot do.


def test_what_penstock_refuses_is_torch_s_with_one_line_of_warning(caplog):
    torch.manual_seed(5)
    by_torch = list(DataLoader("abcdefgh", batch_size=3, shuffle=True))
    with penstock.install() as taken, caplog.at_level(logging.WARNING, "penstock"):
        torch.manual_seed(5)
        loader = DataLoader("abcdefgh", batch_size=3, shuffle=True)
        assert list(loader) == by_torch
        list(loader)
    (record,) = caplog.records
    assert "test_takeover.py" in record.getMessage()
    assert "is a text" in record.getMessage()
    place = only_place(taken)
    assert place.epochs == 0
    assert list(place.left.values()) == [2]
    assert "2 epochs were left to torch's own loader: dataset='abcdefgh'" in str(taken.report())


def test_options_that_mean_nothing_without_workers_are_no_reason_to_refuse():
    with penstock.install():
        assert is_by_penstock(DataLoader(Numbers(), timeout=5))


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_what_no_loader_can_send_to_workers_fails_as_it_does_in_torch():
    dataset = Numbers()
    dataset.lock = threading.Lock()
    options = {"num_workers": 1, "multiprocessing_context": "spawn"}
    with pytest.raises(TypeError) as by_torch:
        list(DataLoader(dataset, **options))
    torch.manual_seed(5)
    with penstock.install(), pytest.raises(TypeError) as caught:
        list(DataLoader(dataset, **options))
    assert type(caught.value) is type(by_torch.value)
    assert str(caught.value) == str(by_torch.value)
    drawn = torch.rand(())
    torch.manual_seed(5)
    torch.empty((), dtype=torch.int64).random_()  # torch's base seed
    assert drawn == torch.rand(())


def test_an_iterator_of_the_user_s_own_stays(caplog):
    with penstock.install() as taken:
        assert isinstance(iter(OwnIterator(Numbers())), _SingleProcessDataLoaderIter)
    assert list(only_place(taken).left) == ["OwnIterator has its own _get_iterator"]


def test_a_datapipe_is_divided_among_the_workers_by_torch():
    with penstock.install() as taken:
        pipe = IterableWrapper(range(10)).sharding_filter()
        assert sorted(DataLoader(pipe, batch_size=None, num_workers=2)) == list(range(10))
    assert only_place(taken).epochs == 0


# On and off.


def test_uninstall_undoes_any_number_of_installs_and_none():
    penstock.uninstall()
    penstock.install()
    penstock.install()
    penstock.uninstall()
    assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]
    assert vars(DataLoader)["__init__"] is ORIGINALS["__init__"]


def test_blocks_may_lie_in_each_other_and_each_has_its_account():
    loader = DataLoader(Numbers(), batch_size=10)
    with penstock.install() as outer:
        list(loader)
        with penstock.install() as inner:
            list(loader)
        assert is_by_penstock(loader)
    assert only_place(inner).batches == 2
    assert sum(place.batches for place in outer.report().places) == 4
    assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]


def test_a_block_that_raises_withdraws_penstock():
    with pytest.raises(KeyError), penstock.install():
        raise KeyError
    assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]


def test_uninstall_in_a_block_leaves_nothing_to_its_end():
    with penstock.install():
        penstock.uninstall()
        assert vars(DataLoader)["__iter__"] is ORIGINALS["__iter__"]


def test_who_wraps_the_class_as_well_may_leave_in_any_order():
    calls = []
    penstock.install()
    ours = DataLoader.__init__

    def wrapper(self, *args, **kwargs):
        calls.append(self)
        ours(self, *args, **kwargs)

    wrapper.__wrapped__ = ours
    DataLoader.__init__ = wrapper
    penstock.uninstall()
    assert DataLoader.__init__ is wrapper
    DataLoader(Numbers())
    with penstock.install() as taken:
        DataLoader(Numbers())
    assert only_place(taken).loaders == 1
    assert len(calls) == 2
    DataLoader.__init__ = ours
    with penstock.install() as taken:
        DataLoader(Numbers())
    assert only_place(taken).loaders == 1


def test_threads_may_iterate_at_the_same_time():
    sums = {}

    def work(number):
        sums[number] = sum(sum(batch) for batch in lists(DataLoader(Numbers(), batch_size=5)))

    with penstock.install() as taken:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sums == dict.fromkeys(range(8), 190)
    place = only_place(taken)
    assert (place.loaders, place.epochs, place.samples) == (8, 8, 160)


def test_the_signature_is_the_one_that_frameworks_look_up():
    import inspect

    before = inspect.signature(DataLoader.__init__)
    with penstock.install():
        assert inspect.signature(DataLoader.__init__) == before
        assert DataLoader.__init__.__qualname__ == "DataLoader.__init__"


# What is told.


class DiesOnce(Numbers):
    def __init__(self, flag: Path) -> None:
        super().__init__()
        self.flag = flag

    def __getitem__(self, index):
        if index == 7 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(100_000) + index


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_that_dies_is_replaced_and_counted(tmp_path):
    with penstock.install() as taken:
        for batch in DataLoader(DiesOnce(tmp_path / "died"), batch_size=5, num_workers=2):
            assert len(batch) == 5
        del batch
    place = only_place(taken)
    assert (place.restarts, place.samples, place.batches) == (1, 20, 4)
    assert place.shared_bytes >= 5 * 400_000
    assert 0 < place.busy_share <= 1
    assert 0 < place.waited_s <= place.elapsed_s
    text = str(taken.report())
    assert "    1 worker died and was replaced\n" in text
    assert "gained: 1 worker died and was replaced, where torch's loader ends with an" in text


def test_loaders_are_grouped_by_the_line_that_made_them():
    with penstock.install() as taken:
        first, second = [DataLoader(Numbers(), batch_size=size) for size in (5, 10)]
        never = DataLoader(Numbers())
        list(first)
        list(second)
    together, alone = taken.report().places
    assert (together.loaders, together.epochs, together.batches) == (2, 2, 6)
    assert alone.place.line == together.place.line + 1
    text = str(taken.report())
    assert ": 2 loaders, 2 epochs, 6 batches, 40 samples in " in text
    assert ": 1 loader, never iterated" in text
    del never


def test_a_loader_that_a_framework_makes_is_known_by_the_line_that_called_the_framework(
    tmp_path, monkeypatch
):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "framework_of_tests.py").write_text(
        "from torch.utils.data import DataLoader\ndef fit(data): return list(DataLoader(data))\n"
    )
    monkeypatch.syspath_prepend(folder)
    import framework_of_tests  # type: ignore[import-not-found]

    with penstock.install() as taken:
        framework_of_tests.fit(Numbers(2))
    place = only_place(taken).place
    assert (place.file, place.through) == (__file__, "framework_of_tests")
    assert "(through framework_of_tests)" in str(taken.report())


def test_a_thousand_epochs_are_remembered_as_one():
    with penstock.install() as taken:
        loader = DataLoader(Numbers(2), batch_size=2)
        for _ in range(1000):
            list(loader)
    (tally,) = taken._account._tallies.values()
    assert len(tally.running) == 1
    assert only_place(taken).epochs == 1000


def test_without_loaders_the_summary_says_that_there_were_none(capsys):
    with penstock.install(summary=True):
        pass
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("penstock: summary\n  no torch.utils.data.DataLoader was")


def test_the_summary_comes_once_and_only_if_asked_for(capsys):
    with penstock.install():
        list(DataLoader(Numbers()))
    assert capsys.readouterr().err == ""
    with penstock.install(summary=True):
        list(DataLoader(Numbers()))
        penstock.uninstall()
        assert "no worker died" in capsys.readouterr().err
    assert capsys.readouterr().err == ""


# Whole programs.


def run_program(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )


def test_torch_may_be_imported_afterwards_and_is_not_before(tmp_path):
    done = run_program(
        """
import sys
import penstock
finders = list(sys.meta_path)
penstock.install(summary=True)
print("torch" in sys.modules, "numpy" in sys.modules)
from torch.utils.data import DataLoader
import torch.utils.data.dataloader as home
print(type(home.__spec__.loader).__name__, type(home.__loader__).__name__)
print(sys.meta_path == finders)
print(type(iter(DataLoader(range(3)))).__name__)
""",
        tmp_path,
    )
    assert done.stdout.splitlines() == [
        "False False",
        "SourceFileLoader SourceFileLoader",
        "True",
        "EpochRun",
    ]
    assert "  program.py:11: 1 loader, 1 epoch," in done.stderr


def test_torch_that_is_imported_after_uninstall_is_torch_s(tmp_path):
    done = run_program(
        """
import penstock
penstock.install()
penstock.uninstall()
from torch.utils.data import DataLoader
print(type(iter(DataLoader(range(3)))).__name__)
""",
        tmp_path,
    )
    assert done.stdout.strip() == "_SingleProcessDataLoaderIter"


def test_a_summary_that_was_written_is_not_written_again_at_the_end(tmp_path):
    done = run_program(
        """
import penstock
with penstock.install(summary=True):
    pass
penstock.install(summary=True)
""",
        tmp_path,
    )
    assert done.stderr.count("penstock: summary") == 2


def test_a_forked_process_has_penstock_and_leaves_the_summary_to_its_parent(tmp_path):
    done = run_program(
        """
import os, sys
import penstock
from torch.utils.data import DataLoader
penstock.install(summary=True)
loader = DataLoader(range(3))
if child := os.fork():
    os.waitpid(child, 0)
    list(loader)
else:
    print(type(iter(loader)).__name__, flush=True)
    sys.exit()
""",
        tmp_path,
    )
    assert done.stdout == "EpochRun\n"
    assert done.stderr.count("penstock: summary") == 1
    assert "1 epoch, 3 batches" in done.stderr


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_program_s_own_classes_travel_to_workers(method, tmp_path):
    done = run_program(
        f"""
import penstock
from torch.utils.data import DataLoader, Dataset

penstock.install(summary=True)

class Data(Dataset):
    def __init__(self):
        self.inner = DataLoader(range(4), batch_size=4)
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return next(iter(self.inner))[index]

if __name__ == "__main__":
    loader = DataLoader(Data(), num_workers=2, multiprocessing_context={method!r})
    print([int(x) for x in loader])
""",
        tmp_path,
    )
    assert done.stdout == "[0, 1, 2, 3]\n", done.stderr
    assert "1 epoch, 4 batches, 4 samples" in done.stderr
