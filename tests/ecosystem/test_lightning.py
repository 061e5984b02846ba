"""Lightning's Trainer with Penstock's loader, beside the same with torch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler
from torch.utils.data import DataLoader as TorchDataLoader

from penstock import DataLoader
from tests.ecosystem.ranks import RANKS, run_ranks
from tests.ecosystem.samples import Numbers, Stream

lightning = pytest.importorskip("lightning", reason="needs the extra 'ecosystem'")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.utilities.data import _update_dataloader  # noqa: E402

pytestmark = [
    # The first test of two processes starts them, and each imports everything.
    pytest.mark.timeout(180),
    # Advice that is not heeded.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # Lightning 2.6 on torch's trees.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
]

EPOCHS = 3
BATCHES = 12


class Model(lightning.LightningModule):
    """Remembers what it was given."""

    def __init__(self, loaders: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.make_loader = loaders
        self.seen: list[list[int]] = []
        self.features: list[torch.Tensor] = []
        self.losses: list[float] = []
        self.validated: list[list[int]] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        ids, features = batch
        loss = (self.layer(features).squeeze(1) - ids / 48).square().mean()
        self.seen.append(ids.tolist())
        self.features.append(features.clone())
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.validated.append(batch[0].tolist())

    def predict_step(self, batch: Any, _: int) -> Any:
        return batch[0].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class HookedModel(Model):
    """Makes its loader in Lightning's hook, where Lightning records the arguments."""

    def train_dataloader(self) -> Any:
        assert self.make_loader is not None
        return self.make_loader()


def make_trainer(folder: Path, **options: Any) -> Any:
    return lightning.Trainer(
        **{
            "accelerator": "cpu",
            "default_root_dir": folder,
            "devices": 1,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "logger": False,
            "max_epochs": EPOCHS,
            "num_sanity_val_steps": 0,
            **options,
        }
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_with_validation_is_the_same_as_with_torchs_loader(
    workers: int, tmp_path: Path
) -> None:
    models = []
    for loader_class in (TorchDataLoader, DataLoader):
        lightning.seed_everything(5, verbose=False)
        model = Model()
        train = loader_class(Numbers(), batch_size=4, shuffle=True, num_workers=workers)
        validate = loader_class(Numbers(10), batch_size=4, num_workers=workers)
        make_trainer(tmp_path).fit(model, train, validate)
        models.append(model)
    expected, actual = models
    assert len(expected.seen) == EPOCHS * BATCHES
    assert expected.seen[:BATCHES] != expected.seen[BATCHES : 2 * BATCHES]
    assert actual.seen == expected.seen
    assert actual.losses == expected.losses
    assert actual.validated == expected.validated == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] * EPOCHS


def make_loader(source: str, workers: int, loader_class: Any = DataLoader, **options: Any) -> Any:
    """A loader whose order comes from a seed, a generator, or the program's random state."""
    if source == "seed":
        options["seed"] = 3
    elif source == "generator":
        options["generator"] = torch.Generator().manual_seed(4)
    if loader_class is DataLoader:
        options.setdefault("snapshot_every_n_steps", 2)
    return loader_class(
        Numbers(noisy=True), batch_size=4, shuffle=True, num_workers=workers, **options
    )


def fit_with_checkpoint(folder: Path, loader: Any, step: int, **options: Any) -> tuple[Model, Path]:
    """A whole fit that leaves a checkpoint of that step behind."""
    lightning.seed_everything(6, verbose=False)
    model = Model()
    keep = ModelCheckpoint(folder, every_n_train_steps=step, save_top_k=-1, filename="{step}")
    trainer = make_trainer(folder, enable_checkpointing=True, callbacks=[keep], **options)
    trainer.fit(model, loader, DataLoader(Numbers(4)))
    return model, folder / f"step={step}.ckpt"


def resume(folder: Path, loader: Any, checkpoint: Path, **options: Any) -> Model:
    # Another process would have other random numbers.
    lightning.seed_everything(99, verbose=False)
    model = Model()
    make_trainer(folder, **options).fit(model, loader, DataLoader(Numbers(4)), ckpt_path=checkpoint)
    return model


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["seed", "generator", "program"])
@pytest.mark.parametrize("step", [5, 17])
def test_a_fit_resumed_within_an_epoch_sees_what_the_undisturbed_one_saw(
    step: int, source: str, workers: int, tmp_path: Path
) -> None:
    whole, checkpoint = fit_with_checkpoint(tmp_path, make_loader(source, workers), step)
    # Lightning takes as many batches as there are and not one more, so whether torch's sampler
    # draws what it draws at its end depends on whether there are workers that are ahead.
    others = 2 - workers if source == "seed" else workers
    rest = resume(tmp_path, make_loader(source, others), checkpoint)
    assert len(rest.seen) == EPOCHS * BATCHES - step
    # The loader of the validation draws from the program's generator as well, and Lightning does
    # not put that back: the epochs behind this one are beyond the loader's state.
    end = BATCHES * (step // BATCHES + 1) if source == "program" else EPOCHS * BATCHES
    assert rest.seen[: end - step] == whole.seen[step:end]
    torch.testing.assert_close(
        rest.features[: end - step], whole.features[step:end], rtol=0, atol=0
    )
    assert rest.losses[: end - step] == whole.losses[step:end]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_fit_resumed_between_epochs_goes_on_with_their_numbers(
    epoch: int, workers: int, tmp_path: Path
) -> None:
    lightning.seed_everything(6, verbose=False)
    whole = Model()
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    trainer = make_trainer(
        tmp_path, enable_checkpointing=True, callbacks=[keep], max_epochs=EPOCHS + 1
    )
    trainer.fit(whole, make_loader("seed", workers), DataLoader(Numbers(4)))
    rest = resume(
        tmp_path,
        make_loader("seed", workers),
        tmp_path / f"epoch={epoch - 1}.ckpt",
        max_epochs=EPOCHS + 1,
    )
    # Between epochs Lightning does not load the loader's state: it tells the sampler the number,
    # of the first epoch only when that has been begun. Workers know their batches by then, which
    # is the same with torch's loader.
    known = epoch * BATCHES if workers == 0 else (epoch + 1) * BATCHES
    assert rest.seen[known - epoch * BATCHES :] == whole.seen[known:]
    known = (epoch + 1) * BATCHES
    torch.testing.assert_close(rest.features[BATCHES:], whole.features[known:], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_with_torchs_loader_the_resumed_fit_sees_something_else(tmp_path: Path) -> None:
    loader = make_loader("program", 0, TorchDataLoader)
    whole, checkpoint = fit_with_checkpoint(tmp_path, loader, 17)
    rest = resume(tmp_path, make_loader("program", 0, TorchDataLoader), checkpoint)
    assert rest.seen != whole.seen[17:]


def test_a_fit_that_validates_within_its_epochs_is_resumed_between_the_validations(
    tmp_path: Path,
) -> None:
    loader = make_loader("seed", 2)
    whole, checkpoint = fit_with_checkpoint(tmp_path, loader, 17, val_check_interval=4)
    rest = resume(tmp_path, make_loader("seed", 2), checkpoint, val_check_interval=4)
    assert rest.seen == whole.seen[17:]


def test_a_fit_that_was_stopped_by_its_steps_goes_on_where_it_stopped(tmp_path: Path) -> None:
    lightning.seed_everything(6, verbose=False)
    whole = Model()
    make_trainer(tmp_path, max_steps=30, max_epochs=-1).fit(whole, make_loader("seed", 2))
    lightning.seed_everything(6, verbose=False)
    first = Model()
    trainer = make_trainer(tmp_path, max_steps=19, max_epochs=-1)
    trainer.fit(first, make_loader("seed", 2))
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    rest = resume(
        tmp_path,
        make_loader("seed", 2),
        tmp_path / "stopped.ckpt",
        max_steps=30,
        max_epochs=-1,
    )
    assert first.seen + rest.seen == whole.seen
    assert first.losses + rest.losses == whole.losses


OPTIONS: dict[str, Any] = {
    "seed": 11,
    "on_error": "skip",
    "max_skipped": 5,
    "snapshot_every_n_steps": 3,
}


def options_of(loader: Any) -> dict[str, Any]:
    return {name: getattr(loader, name) for name in OPTIONS}


def test_a_loader_that_lightning_makes_again_keeps_its_options() -> None:
    loader = DataLoader(Numbers(bad=(3,)), batch_size=4, shuffle=True, num_workers=2, **OPTIONS)
    again = _update_dataloader(loader, torch.utils.data.SequentialSampler(loader.dataset))
    assert type(again) is DataLoader
    assert options_of(again) == OPTIONS
    assert (again.batch_size, again.num_workers) == (4, 2)
    ids = [number for batch in again for number in batch[0].tolist()]
    assert ids == [0, 1, 2, 47, *range(4, 47)]
    assert [error.index for error in again.skipped] == [3]


class EveryOther(BatchSampler):
    """A batch sampler of one's own, with the arguments of torch's."""


@pytest.mark.parametrize("model_class", [Model, HookedModel])
def test_predictions_come_in_order_and_skip_what_is_bad(
    model_class: type[Model], tmp_path: Path
) -> None:
    def make() -> Any:
        return DataLoader(Numbers(10, bad=(5,)), batch_size=4, num_workers=2, **OPTIONS)

    trainer = make_trainer(tmp_path)
    model = model_class(make)
    model.predict_dataloader = make
    loaders = None if model_class is HookedModel else make()
    predicted = trainer.predict(model, loaders)
    assert options_of(trainer.predict_dataloaders) == OPTIONS
    # Lightning gives the loader a batch sampler of its own, whose batches are left short.
    assert predicted == [[0, 1, 2, 3], [4, 6, 7], [8, 9]]


def test_overfitting_some_batches_takes_them_in_order(tmp_path: Path) -> None:
    seen = []
    for loader_class, more in ((TorchDataLoader, {}), (DataLoader, OPTIONS)):
        model = Model()
        loader = loader_class(Numbers(), batch_size=4, shuffle=False, num_workers=2, **more)
        make_trainer(tmp_path, overfit_batches=2).fit(model, loader)
        seen.append(model.seen)
    assert seen[1] == seen[0] == [[0, 1, 2, 3], [4, 5, 6, 7]] * EPOCHS


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_without_a_length_is_fitted_to_its_end(workers: int, tmp_path: Path) -> None:
    seen = []
    for loader_class in (TorchDataLoader, DataLoader):
        model = StreamModel()
        loader = loader_class(Stream(), batch_size=4, num_workers=workers)
        make_trainer(tmp_path, max_epochs=2).fit(model, loader)
        seen.append(model.seen)
    assert seen[1] == seen[0]
    assert sorted(number for batch in seen[1] for number in batch) == sorted([*range(48)] * 2)


class StreamModel(Model):
    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:  # type: ignore[override]
        self.seen.append(batch.tolist())
        return self.layer(torch.ones(len(batch), 3)).square().mean()


# Two processes.

BAD = (9,)


def fit_in_ranks(folder: Path) -> dict[str, Any]:
    """Runs in each rank: the same fits with torch's loader and with Penstock's, then a resume."""
    told: dict[str, Any] = {}

    def fit(name: str, model: Model, loader: Any, **options: Any) -> Any:
        checkpoint = options.pop("ckpt_path", None)
        trainer = make_trainer(folder, devices=RANKS, strategy="ddp", **options)
        trainer.fit(model, loader, ckpt_path=checkpoint)
        made = trainer.train_dataloader
        told[name] = {
            "seen": model.seen,
            "losses": model.losses,
            "loader": type(made).__name__,
            "sampler": type(made.sampler).__name__,
            "options": {key: getattr(made, key, None) for key in OPTIONS},
            "skipped": [error.index for error in getattr(made, "skipped", [])],
        }
        return trainer

    def plain(loader_class: Any, **options: Any) -> Any:
        return loader_class(Numbers(), batch_size=4, shuffle=True, num_workers=1, **options)

    for name, loader_class in (("torch", TorchDataLoader), ("penstock", DataLoader)):
        lightning.seed_everything(5, verbose=False)
        fit(name, Model(), plain(loader_class))

    lightning.seed_everything(5, verbose=False)
    fit("given", Model(), plain(DataLoader, **OPTIONS))
    lightning.seed_everything(5, verbose=False)
    fit("hooked", HookedModel(lambda: plain(DataLoader, **OPTIONS)), None)

    def tolerant() -> Any:
        return DataLoader(Numbers(bad=BAD), batch_size=4, shuffle=True, **OPTIONS)

    fit("bad", Model(), tolerant(), max_epochs=1)

    lightning.seed_everything(5, verbose=False)
    keep = ModelCheckpoint(folder, every_n_train_steps=8, save_top_k=-1, filename="{step}")
    fit("whole", Model(), make_loader("seed", 1), enable_checkpointing=True, callbacks=[keep])
    lightning.seed_everything(5, verbose=False)
    fit("rest", Model(), make_loader("seed", 1), ckpt_path=folder / "step=8.ckpt")
    return told


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(fit_in_ranks, tmp_path_factory.mktemp("ranks"))


def test_two_processes_see_what_they_see_with_torchs_loader(ranks: list[dict[str, Any]]) -> None:
    for told in ranks:
        assert told["torch"]["sampler"] == told["penstock"]["sampler"] == "DistributedSampler"
        assert told["penstock"]["loader"] == "DataLoader"
        assert told["penstock"]["seen"] == told["torch"]["seen"]
        assert told["penstock"]["losses"] == told["torch"]["losses"]


@pytest.mark.parametrize("name", ["given", "hooked"])
def test_in_two_processes_each_sample_is_seen_once_an_epoch_and_options_survive(
    name: str, ranks: list[dict[str, Any]]
) -> None:
    per_epoch = BATCHES // RANKS
    for epoch in range(EPOCHS):
        seen = [told[name]["seen"][epoch * per_epoch :][:per_epoch] for told in ranks]
        assert sorted(number for rank in seen for batch in rank for number in batch) == [*range(48)]
    for told in ranks:
        assert told[name]["sampler"] == "DistributedSampler"
        assert told[name]["options"] == OPTIONS


def test_in_two_processes_bad_samples_are_skipped_where_they_fall(
    ranks: list[dict[str, Any]],
) -> None:
    assert sorted(index for told in ranks for index in told["bad"]["skipped"]) == [*BAD]
    seen = [number for told in ranks for batch in told["bad"]["seen"] for number in batch]
    assert sorted(seen) == [number for number in range(48) if number not in BAD]


def test_two_processes_go_on_within_an_epoch(ranks: list[dict[str, Any]]) -> None:
    for told in ranks:
        assert told["rest"]["seen"] == told["whole"]["seen"][8:]
        assert told["rest"]["losses"] == told["whole"]["losses"][8:]
