"""Accelerate with Penstock's loader, beside the same with torch's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

from penstock import DataLoader
from tests.ecosystem.ranks import RANKS, run_ranks
from tests.ecosystem.samples import Numbers, Stream

accelerate = pytest.importorskip("accelerate", reason="needs the extra 'ecosystem'")

from accelerate.state import AcceleratorState, GradientState, PartialState  # noqa: E402
from accelerate.utils import DataLoaderConfiguration, set_seed  # noqa: E402

# The first test of two processes starts them, and each imports everything.
pytestmark = pytest.mark.timeout(180)

OPTIONS: dict[str, Any] = {
    "seed": 11,
    "on_error": "skip",
    "max_skipped": 5,
    "snapshot_every_n_steps": 3,
}


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state for the whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


def ids_of(loader: Any) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def options_of(loader: Any) -> dict[str, Any]:
    return {name: getattr(loader, name, None) for name in OPTIONS}


def train(loader_class: Any, *, workers: int, epochs: int = 2) -> list[tuple[list[int], float]]:
    """The loop of Accelerate's own introduction; what it saw and lost, batch by batch."""
    set_seed(3)
    accelerator = accelerate.Accelerator(cpu=True)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = loader_class(Numbers(), batch_size=4, shuffle=True, num_workers=workers)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    told = []
    for _ in range(epochs):
        for ids, features in loader:
            optimizer.zero_grad()
            loss = (model(features).squeeze(1) - ids / 48).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            told.append((ids.tolist(), loss.item()))
    return told


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_the_same_as_with_torchs_loader(workers: int) -> None:
    expected = train(TorchDataLoader, workers=workers)
    assert len(expected) == 24
    assert train(DataLoader, workers=workers) == expected


@pytest.mark.parametrize("stateful", [False, True])
def test_a_prepared_loader_is_penstocks_and_keeps_its_options(stateful: bool) -> None:
    configuration = DataLoaderConfiguration(use_stateful_dataloader=stateful)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=configuration)
    loader = DataLoader(Numbers(20), batch_size=4, shuffle=True, num_workers=2, **OPTIONS)
    prepared = accelerator.prepare(loader)
    assert isinstance(prepared, DataLoader)
    assert options_of(prepared) == OPTIONS
    assert ids_of(prepared) == ids_of(loader)
    assert ids_of(prepared) == ids_of(loader)


def test_a_prepared_loader_skips_what_is_bad() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    loader = DataLoader(Numbers(10, bad=(5,)), batch_size=4, num_workers=2, **OPTIONS)
    prepared = accelerator.prepare(loader)
    # The batches are those of a batch sampler, which is left as it is: they are short.
    assert ids_of(prepared) == [[0, 1, 2, 3], [4, 6, 7], [8, 9]]
    assert [error.index for error in prepared.skipped] == [5]


def test_the_order_that_follows_from_a_seed_is_kept_or_it_is_said_that_it_is_not() -> None:
    def make() -> Any:
        return DataLoader(Numbers(), batch_size=4, shuffle=True, seed=5)

    def prepared(*, seedable: bool) -> Any:
        config = DataLoaderConfiguration(use_seedable_sampler=seedable)
        return accelerate.Accelerator(cpu=True, dataloader_config=config).prepare(make())

    assert ids_of(prepared(seedable=False)) == ids_of(make())
    other = prepared(seedable=True)
    with pytest.warns(UserWarning, match="use_seedable_sampler=False"):
        first = ids_of(other)
    assert sorted(map(len, first)) == sorted(map(len, ids_of(make())))
    # Once is enough.
    ids_of(other)


def test_what_accelerate_makes_of_torchs_loaders_stays_torchs() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.prepare(DataLoader(Numbers(8), batch_size=4))
    prepared = accelerator.prepare(TorchDataLoader(Numbers(8), batch_size=4))
    assert type(prepared.base_dataloader) is TorchDataLoader
    assert ids_of(prepared) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_batches_are_passed_by_in_the_same_order(workers: int, prepared: bool) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    loader: Any = DataLoader(Numbers(), batch_size=4, shuffle=True, num_workers=workers, seed=2)
    whole = ids_of(loader)
    again: Any = DataLoader(Numbers(), batch_size=4, shuffle=True, num_workers=workers, seed=2)
    if prepared:
        again = accelerator.prepare(again)
    assert ids_of(accelerate.skip_first_batches(again, 5)) == whole[5:]


@pytest.mark.parametrize("prepared", [True, False])
def test_behind_the_batches_that_are_passed_by_options_hold(prepared: bool) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    loader: Any = DataLoader(Numbers(noisy=True), batch_size=4, shuffle=True, **OPTIONS)
    whole = [features for _, features in loader]
    again: Any = DataLoader(Numbers(noisy=True), batch_size=4, shuffle=True, **OPTIONS)
    if prepared:
        again = accelerator.prepare(again)
    rest = accelerate.skip_first_batches(again, 5)
    assert options_of(rest) == OPTIONS
    torch.testing.assert_close([features for _, features in rest], whole[5:], rtol=0, atol=0)


def test_a_prepared_loader_goes_on_from_its_state() -> None:
    accelerator = accelerate.Accelerator(cpu=True)

    def make(workers: int) -> Any:
        return accelerator.prepare(
            DataLoader(Numbers(noisy=True), batch_size=4, shuffle=True, num_workers=workers, seed=2)
        )

    loader = make(2)
    list(loader)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    state = loader.state_dict()
    expected = [*iterator, *loader]
    again = make(0)
    again.load_state_dict(state)
    torch.testing.assert_close([*again, *again], expected, rtol=0, atol=0)


def test_a_stream_is_read_to_its_end() -> None:
    seen = []
    for loader_class in (TorchDataLoader, DataLoader):
        accelerator = accelerate.Accelerator(cpu=True)
        loader = accelerator.prepare(loader_class(Stream(), batch_size=4, num_workers=2))
        seen.append([batch.tolist() for batch in loader])
    assert seen[1] == seen[0]
    assert sorted(number for batch in seen[1] for number in batch) == [*range(48)]


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_of_a_prepared_loader_is_penstocks_too(how: str) -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    loader = DataLoader(Numbers(20), batch_size=4, shuffle=True, **OPTIONS)
    prepared = accelerator.prepare(loader)
    copied = copy.deepcopy(prepared) if how == "deepcopy" else pickle.loads(pickle.dumps(prepared))
    assert isinstance(copied.base_dataloader, DataLoader)
    assert options_of(copied) == OPTIONS
    assert options_of(accelerate.skip_first_batches(copied, 1)) == OPTIONS
    assert ids_of(copied) == ids_of(loader)


def test_a_program_that_saves_its_state_goes_on_within_the_epoch(tmp_path: Path) -> None:
    configuration = DataLoaderConfiguration(use_stateful_dataloader=True)

    def make() -> tuple[Any, Any]:
        accelerator = accelerate.Accelerator(cpu=True, dataloader_config=configuration)
        loader = DataLoader(Numbers(noisy=True), batch_size=4, shuffle=True, seed=2, num_workers=1)
        return accelerator, accelerator.prepare(loader)

    accelerator, loader = make()
    list(loader)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    accelerator.save_state(str(tmp_path))
    expected = [*iterator, *loader]
    accelerator, again = make()
    accelerator.load_state(str(tmp_path))
    torch.testing.assert_close([*again, *again], expected, rtol=0, atol=0)


# Two processes.


def train_in_ranks(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {
        "torch": train(TorchDataLoader, workers=1),
        "penstock": train(DataLoader, workers=1),
    }
    accelerator = accelerate.Accelerator(cpu=True)
    loader = DataLoader(Numbers(), batch_size=4, shuffle=True, num_workers=1, **OPTIONS)
    prepared = accelerator.prepare(loader)
    told["seeded"] = [ids_of(prepared), ids_of(prepared)]
    told["options"] = options_of(prepared)
    # Between epochs Accelerate's program tells the epoch, and then leaves out what it has seen.
    prepared.set_epoch(1)
    told["rest"] = ids_of(accelerate.skip_first_batches(prepared, 2))
    gathered = [
        accelerator.gather_for_metrics(ids).tolist()
        for ids, _ in accelerator.prepare(DataLoader(Numbers(10), batch_size=4))
    ]
    told["gathered"] = gathered
    told |= {kind: divide(kind) for kind in ("split_batches", "dispatch_batches")}
    return told


def divide(kind: str) -> dict[str, Any]:
    """An epoch of a loader that is divided so, and the rest of it behind its third batch."""
    accelerator = accelerate.Accelerator(
        cpu=True,
        dataloader_config=DataLoaderConfiguration(**{kind: True}, use_stateful_dataloader=True),
    )

    def make() -> Any:
        loader = DataLoader(Numbers(), batch_size=4, shuffle=True, num_workers=1, **OPTIONS)
        return accelerator.prepare(loader)

    loader = make()
    whole, state = [], {}
    for step, (ids, _) in enumerate(loader):
        whole.append(ids.tolist())
        if step == 2:
            state = loader.state_dict()
    again = make()
    again.load_state_dict(state)
    return {"whole": whole, "rest": ids_of(again), "options": options_of(again)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(train_in_ranks, tmp_path_factory.mktemp("ranks"))


def test_two_processes_train_as_with_torchs_loader(ranks: list[dict[str, Any]]) -> None:
    for told in ranks:
        assert len(told["torch"]) == 24 // RANKS
        assert told["penstock"] == told["torch"]


def test_two_processes_share_the_seeded_order(ranks: list[dict[str, Any]]) -> None:
    loader = DataLoader(Numbers(), batch_size=4, shuffle=True, **OPTIONS)
    for epoch in range(2):
        whole = ids_of(loader)
        assert [told["seeded"][epoch] for told in ranks] == [whole[0::2], whole[1::2]]
        if epoch == 1:
            assert [told["rest"] for told in ranks] == [whole[4::2], whole[5::2]]


def test_two_processes_gather_each_sample_once(ranks: list[dict[str, Any]]) -> None:
    for told in ranks:
        assert [number for batch in told["gathered"] for number in batch] == [*range(10)]


def test_in_two_processes_options_survive(ranks: list[dict[str, Any]]) -> None:
    for told in ranks:
        assert told["options"] == OPTIONS


@pytest.mark.parametrize("kind", ["split_batches", "dispatch_batches"])
def test_two_processes_divide_batches_and_go_on_behind_each(
    ranks: list[dict[str, Any]], kind: str
) -> None:
    first, second = (told[kind] for told in ranks)
    expected = ids_of(DataLoader(Numbers(), batch_size=4, shuffle=True, **OPTIONS))
    both = zip(first["whole"], second["whole"], strict=True)
    together = [number for pair in both for ids in pair for number in ids]
    assert together == [number for ids in expected for number in ids]
    for told in (first, second):
        assert told["rest"] == told["whole"][3:]
        assert told["options"] == OPTIONS
