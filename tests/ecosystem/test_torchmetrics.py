"""Torchmetrics over Penstock's loader."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader

from penstock import DataLoader
from tests.ecosystem.samples import Numbers

torchmetrics = pytest.importorskip("torchmetrics", reason="needs the extra 'ecosystem'")


def evaluate(loader: Any) -> dict[str, torch.Tensor]:
    """An evaluation as torchmetrics' introduction writes it, with metrics that keep batches."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 5)
    metrics = torchmetrics.MetricCollection(
        {
            "accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=5),
            "confusion": torchmetrics.ConfusionMatrix(task="multiclass", num_classes=5),
        }
    )
    kept = torchmetrics.CatMetric()
    mean = torchmetrics.MeanMetric()
    with torch.no_grad():
        for ids, features in loader:
            metrics.update(model(features), ids % 5)
            # It holds on to the tensors that it was given.
            kept.update(ids)
            mean.update(features.mean(), weight=len(ids))
    return {**metrics.compute(), "ids": kept.compute(), "mean": mean.compute()}


@pytest.mark.parametrize("workers", [0, 2])
def test_metrics_are_the_same_as_with_torchs_loader(workers: int) -> None:
    told = [
        evaluate(loader_class(Numbers(403), batch_size=4, num_workers=workers))
        for loader_class in (TorchDataLoader, DataLoader)
    ]
    # Of a hundred batches, kept until the end, none was overwritten by one behind it.
    assert told[1]["ids"].tolist() == [*range(403)]
    assert int(told[1]["confusion"].sum()) == 403
    torch.testing.assert_close(told[1], told[0], rtol=0, atol=0)


def test_metrics_are_of_the_samples_that_were_not_skipped() -> None:
    bad = (3, 50)
    loader = DataLoader(
        Numbers(80, bad=bad), batch_size=8, num_workers=2, on_error="skip", max_skipped=2
    )
    told = evaluate(loader)
    assert sorted(told["ids"].tolist()) == [i for i in range(80) if i not in bad]
    assert int(told["confusion"].sum()) == 78
