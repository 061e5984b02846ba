"""Each test of this folder ends with torch's class as it began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.utils.data import DataLoader

import penstock
from tests.takeover.roles import ORIGINALS


@pytest.fixture(autouse=True)
def nothing_installed() -> Iterator[None]:
    yield
    penstock.uninstall()
    assert {name: vars(DataLoader)[name] for name in ORIGINALS} == ORIGINALS
