"""Hugging Face's Trainer with Penstock's loader, beside the same with torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

from penstock import DataLoader
from tests.ecosystem.samples import WORDS, Sentences

transformers = pytest.importorskip("transformers", reason="needs the extra 'ecosystem'")
pytest.importorskip("accelerate", reason="needs the extra 'ecosystem'")

# The Trainer pins memory by default, and here is none to pin to.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no"),
    # The Trainer's default, which orders a seeded loader too; the samples stay exactly those.
    pytest.mark.filterwarnings("ignore:Accelerate has put its SeedableRandomSampler:UserWarning"),
]

STEPS = len(Sentences()) // 4


class Seen(transformers.BertForSequenceClassification):
    """A tiny random model that remembers its inputs."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.seen: list[list[list[int]]] = []

    def forward(self, input_ids: Any = None, labels: Any = None, **_: Any) -> Any:
        if self.training:
            self.seen.append(input_ids.tolist())
        return super().forward(input_ids=input_ids, labels=labels)


def make_model() -> Seen:
    transformers.set_seed(1)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        # A model without random numbers of its own.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
    )
    return Seen(config)


def make_trainer(folder: Path, make_loader: Any = None, **options: Any) -> Any:
    """A Trainer whose training batches come from `make_loader`, or from its own loader."""

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            return super().get_train_dataloader() if make_loader is None else make_loader(self)

    arguments = transformers.TrainingArguments(
        folder,
        **{
            "disable_tqdm": True,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "num_train_epochs": 3,
            "per_device_train_batch_size": 4,
            "report_to": "none",
            "save_steps": 8,
            "seed": 5,
            "use_cpu": True,
            **options,
        },
    )
    return Trainer(make_model(), arguments, train_dataset=Sentences(), eval_dataset=Sentences())


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights_of(trainer: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.model.parameters()]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prepared", [True, False])
def test_training_is_the_same_as_with_torchs_loader(
    workers: int, prepared: bool, tmp_path: Path
) -> None:
    trainers = []
    for loader_class in (TorchDataLoader, DataLoader):

        def make_loader(trainer: Any, loader_class: Any = loader_class) -> Any:
            generator = torch.Generator().manual_seed(2)
            loader = loader_class(
                Sentences(), batch_size=4, shuffle=True, num_workers=workers, generator=generator
            )
            return trainer.accelerator.prepare(loader) if prepared else loader

        trainer = make_trainer(tmp_path, make_loader)
        trainer.train()
        trainers.append(trainer)
    theirs, ours = trainers
    assert len(theirs.model.seen) == 3 * STEPS
    assert theirs.model.seen[:STEPS] != theirs.model.seen[STEPS : 2 * STEPS]
    assert ours.model.seen == theirs.model.seen
    assert losses_of(ours) == losses_of(theirs)
    assert ours.evaluate()["eval_loss"] == theirs.evaluate()["eval_loss"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [8, 16])
@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "bare"])
def test_training_resumed_without_skipping_data_is_as_if_undisturbed(
    prepared: bool, step: int, workers: int, tmp_path: Path
) -> None:
    def make_loader(trainer: Any) -> Any:
        loader = DataLoader(Sentences(), batch_size=4, shuffle=True, num_workers=workers, seed=2)
        return trainer.accelerator.prepare(loader) if prepared else loader

    whole = make_trainer(tmp_path, make_loader, ignore_data_skip=False)
    whole.train()
    rest = make_trainer(tmp_path, make_loader, ignore_data_skip=False)
    rest.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert rest.model.seen == whole.model.seen[step:]
    assert losses_of(rest) == losses_of(whole)
    torch.testing.assert_close(weights_of(rest), weights_of(whole), rtol=0, atol=0)


@pytest.mark.parametrize("prepared", [True, False])
def test_random_contents_and_skipped_samples_are_the_same_behind_a_resume(
    prepared: bool, tmp_path: Path
) -> None:
    def make_loader(trainer: Any) -> Any:
        loader = DataLoader(
            Sentences(noisy=True, bad=(7,)),
            batch_size=4,
            shuffle=True,
            num_workers=2,
            seed=2,
            on_error="skip",
            max_skipped=1,
            # With a batch sampler batches are short on both sides of the resume.
        )
        return trainer.accelerator.prepare(loader) if prepared else loader

    whole = make_trainer(tmp_path, make_loader)
    whole.train()
    rest = make_trainer(tmp_path, make_loader)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    # What a bare loader has filled places with, and what the rest of it behind a resume leaves
    # short, differ in that one epoch only.
    first = 8 if prepared else 2 * STEPS
    assert rest.model.seen[first - 8 :] == whole.model.seen[first:]
    assert len(rest.model.seen) == len(whole.model.seen) - 8


def test_evaluation_and_prediction_go_through_a_loader_of_ours(tmp_path: Path) -> None:
    told = []
    for loader_class in (TorchDataLoader, DataLoader):

        class Trainer(transformers.Trainer):
            def get_eval_dataloader(self, *_: Any, loader_class: Any = loader_class) -> Any:
                return loader_class(Sentences(), batch_size=5, num_workers=2)

            get_test_dataloader = get_eval_dataloader

        arguments = transformers.TrainingArguments(
            tmp_path, disable_tqdm=True, report_to="none", use_cpu=True
        )
        trainer = Trainer(make_model(), arguments, eval_dataset=Sentences())
        told.append((trainer.evaluate()["eval_loss"], trainer.predict(Sentences()).label_ids))
    assert told[1][0] == told[0][0]
    assert told[1][1].tolist() == told[0][1].tolist() == [i % 2 for i in range(24)]
