"""Loaders that are made again from their attributes, by a module of Accelerate's shape.

`tests/ecosystem` does the same with Accelerate itself, where that is installed.
"""

from __future__ import annotations

import copy
import pickle
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from torch.utils.data import DataLoader as TorchDataLoader

from penstock import DataLoader
from penstock.integrations import accelerate

pytestmark = pytest.mark.usefixtures("no_leaks")

# How Accelerate goes about it: names, arguments and the order of things are those that matter here.
SOURCE = """
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

NAMES = ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "generator",
         "multiprocessing_context", "prefetch_factor", "persistent_workers", "pin_memory_device",
         "in_order")

class DataLoaderAdapter:
    def __init__(self, dataset, use_stateful_dataloader=False, batch_sampler=None, **kwargs):
        if use_stateful_dataloader:
            raise RuntimeError("a loader of torchdata's is made")
        self.use_stateful_dataloader = use_stateful_dataloader
        self.base_dataloader = DataLoader(dataset, batch_sampler=batch_sampler, **kwargs)

    def __getattr__(self, name):
        if name == "base_dataloader":
            raise AttributeError(name)
        return getattr(self.base_dataloader, name)

    def __iter__(self):
        return iter(self.base_dataloader)

def arguments_of(loader):
    return {name: getattr(loader, name) for name in NAMES}

def prepare(loader, stateful=False):
    kwargs = arguments_of(loader)
    return DataLoaderAdapter(
        loader.dataset,
        use_stateful_dataloader=stateful,
        batch_sampler=loader.batch_sampler,
        **kwargs,
    )

def skip_first_batches(loader, count):
    kwargs = arguments_of(loader)
    batches = list(loader.batch_sampler)[count:]
    return DataLoader(loader.dataset, batch_sampler=batches, **kwargs)
"""

OPTIONS: dict[str, Any] = {
    "seed": 11,
    "on_error": "skip",
    "max_skipped": 5,
    "snapshot_every_n_steps": 3,
}

Imported = Callable[..., Any]


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Imported:
    """Imports such a module, perhaps of another version."""
    monkeypatch.setattr(accelerate, "_strange", set())

    def load(change: tuple[str, str] = ("", ""), name: str = "accelerate.data_loader") -> Any:
        package, module = types.ModuleType("accelerate"), types.ModuleType(name)
        package.__version__ = "9.9"  # type: ignore[attr-defined]
        source = SOURCE.replace(*change) if change[0] else SOURCE
        assert change == ("", "") or source != SOURCE
        exec(source, vars(module))
        monkeypatch.setitem(sys.modules, "accelerate", package)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return load


def options_of(loader: Any) -> dict[str, Any]:
    return {name: getattr(loader, name, None) for name in OPTIONS}


def numbers(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def loader_of(**settings: Any) -> DataLoader[Any]:
    return DataLoader(range(10), batch_size=4, shuffle=True, **{**OPTIONS, **settings})


@pytest.mark.parametrize("stateful", [False, True])
def test_a_loader_that_is_made_again_keeps_its_options(imported: Imported, stateful: bool) -> None:
    # Whether it was imported before the loader was made or behind it is the same.
    loader = loader_of()
    prepared = imported().prepare(loader, stateful)
    assert isinstance(prepared.base_dataloader, DataLoader)
    assert prepared.use_stateful_dataloader == stateful
    assert options_of(prepared) == OPTIONS
    assert [numbers(prepared), numbers(prepared)] == [numbers(loader), numbers(loader)]


@pytest.mark.parametrize("prepared", [False, True])
def test_so_does_the_rest_of_one_at_the_same_epoch(imported: Imported, prepared: bool) -> None:
    module = imported()
    loader: Any = loader_of()
    numbers(loader)
    if prepared:
        loader = module.prepare(loader)
    rest = module.skip_first_batches(loader, 1)
    assert type(rest) is DataLoader
    assert options_of(rest) == OPTIONS
    assert rest.state_dict()["epoch"] == 1
    later = module.prepare(loader_of())
    later.base_dataloader.set_epoch(4)
    assert module.prepare(later).base_dataloader.state_dict()["epoch"] == 4


def test_other_loaders_stay_torchs(imported: Imported) -> None:
    module = imported()
    others = TorchDataLoader(range(10), batch_size=4)
    for _ in range(2):
        assert type(module.prepare(others).base_dataloader) is TorchDataLoader
        assert type(module.skip_first_batches(others, 1)) is TorchDataLoader
        assert type(module.DataLoader([1])) is TorchDataLoader
        # And now with ours in between.
        module.prepare(loader_of())
    with pytest.raises(RuntimeError, match="torchdata's"):
        module.prepare(others, stateful=True)


def test_nothing_is_touched_until_a_loader_of_ours_is_taken_apart(imported: Imported) -> None:
    module = imported()
    begin = module.DataLoaderAdapter.__init__
    loader = loader_of()
    assert loader.pin_memory_device == ""
    module.prepare(TorchDataLoader([1]))
    assert module.DataLoader is TorchDataLoader
    assert module.DataLoaderAdapter.__init__ is begin
    module.prepare(loader)
    once = module.DataLoader, module.DataLoaderAdapter.__init__
    module.prepare(loader)
    assert (module.DataLoader, module.DataLoaderAdapter.__init__) == once


def test_its_name_of_the_class_still_serves_as_one(imported: Imported) -> None:
    module = imported()
    module.prepare(loader_of())
    assert isinstance(TorchDataLoader([1]), module.DataLoader)
    assert isinstance(loader_of(), module.DataLoader)
    assert not isinstance([1], module.DataLoader)
    assert issubclass(TorchDataLoader, module.DataLoader)
    assert not issubclass(list, module.DataLoader)

    class Derived(module.DataLoader):  # type: ignore[misc, name-defined]
        """As somebody may derive one."""

    derived = Derived([1, 2])
    assert type(derived) is Derived
    assert isinstance(derived, Derived)
    assert not isinstance(TorchDataLoader([1]), Derived)
    assert not issubclass(TorchDataLoader, Derived)
    assert len(list(derived)) == 2


def test_nobody_else_is_told_more_than_the_device(imported: Imported) -> None:
    imported().prepare(loader_of())
    device = loader_of(pin_memory_device="").pin_memory_device
    assert type(device) is str
    assert type(vars(loader_of())["pin_memory_device"]) is str


def test_what_accelerate_is_told_is_the_device_and_leaves_as_such(imported: Imported) -> None:
    module = imported()
    device = module.arguments_of(loader_of(pin_memory_device="cuda:1"))["pin_memory_device"]
    assert type(device) is not str
    assert device == "cuda:1"
    for copied in (pickle.loads(pickle.dumps(device)), copy.deepcopy(device)):
        assert (type(copied), copied) == (str, "cuda:1")
    made = module.prepare(loader_of(pin_memory_device="cuda:1")).base_dataloader
    assert type(vars(made)["pin_memory_device"]) is str


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("DataLoaderAdapter", "DataLoaderWrapper"), id="no adapter"),
        pytest.param(
            ("use_stateful_dataloader=False, batch_sampler", "batch_sampler"), id="other arguments"
        ),
        pytest.param(("import BatchSampler, DataLoader", "import BatchSampler"), id="no class"),
        pytest.param(
            ("NAMES =", "class DataLoader(DataLoader): ...\nNAMES ="), id="a class of its own"
        ),
    ],
)
def test_a_version_that_looks_different_makes_torchs_loaders_and_a_warning_says_so(
    imported: Imported, change: tuple[str, str]
) -> None:
    module = imported(change)
    with pytest.warns(UserWarning, match=r"Accelerate 9\.9 .*is torch's loader, without seed="):
        arguments = module.arguments_of(loader_of())
    assert type(arguments["pin_memory_device"]) is str
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = TorchDataLoader(range(10), **module.arguments_of(loader_of()))
    assert type(made) is TorchDataLoader


def test_so_does_one_that_builds_loaders_elsewhere(imported: Imported) -> None:
    imported()
    other = imported(("class DataLoaderAdapter", "class Other"), name="accelerate.utils.other")
    with pytest.warns(UserWarning, match=r"accelerate\.utils\.other"):
        other.arguments_of(loader_of())


def test_and_one_with_arguments_that_are_newer_than_ours(imported: Imported) -> None:
    module = imported(("batch_sampler=batches,", "batch_sampler=batches, newer=1,"))

    class Newer(TorchDataLoader[Any]):
        def __init__(self, *args: Any, newer: int, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerate, "TorchDataLoader", Newer)
        module.DataLoader = Newer
        with pytest.warns(UserWarning, match="is torch's loader"):
            rest = module.skip_first_batches(loader_of(), 1)
    assert type(rest) is Newer
    assert [len(batch) for batch in rest] == [4, 2]


def test_a_state_that_was_loaded_before_does_not_go_along_in_silence(imported: Imported) -> None:
    module = imported()
    loader = loader_of()
    loader.load_state_dict(loader_of().state_dict())
    with pytest.warns(UserWarning, match="load the state into that one"):
        module.prepare(loader)


def test_what_lacks_the_protocol_of_copies_does_not_find_ours(imported: Imported) -> None:
    # Before Python 3.11 an object without `__getstate__` has none, and an adapter hands on.
    assert "__getstate__" not in vars(DataLoader)
    loader = loader_of()
    numbers(loader)
    for made in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader)), copy.copy(loader)):
        assert made.state_dict()["epoch"] == 1
        assert options_of(made) == OPTIONS


class Forgetful(DataLoader[Any]):
    """A loader of somebody's that leaves something behind when it is copied."""

    handle: object = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "handle": "closed"}


def test_that_of_a_derived_class_is_asked() -> None:
    loader = Forgetful(range(10), batch_size=4)
    loader.handle = lambda: "cannot be pickled"
    numbers(loader)
    for made in (pickle.loads(pickle.dumps(loader)), copy.copy(loader)):
        assert made.handle == "closed"
        assert made.state_dict()["epoch"] == 1
        assert numbers(made) == numbers(loader)
