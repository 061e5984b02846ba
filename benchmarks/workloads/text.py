"""Lines of text, and a tokenizer that is trained on them."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from benchmarks.row import NotMeasuredError

LINES, VOCABULARY, WORDS = 20_000, 8_000, 12_000
SYLLABLES = [first + vowel for first in "bcdfghklmnprstvw" for vowel in "aeiou"]


def generate_lines(count: int = LINES) -> list[str]:
    """Lines of 4 to 32 words, drawn as in a language: few words often, most of them seldom."""
    draw = random.Random(0)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 5))) for _ in range(WORDS)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, WORDS + 1)))
    lines = []
    for _ in range(count):
        line = draw.choices(words, cum_weights=weights, k=draw.randint(4, 32))
        lines.append(f"{' '.join(line).capitalize()}.")
    return lines


def train_tokenizer(lines: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer with a vocabulary of its own.

    Raises:
        NotMeasuredError: `tokenizers` is not installed.
    """
    # Threads of the tokenizer's own do not survive a fork, and workers are the parallelism here.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise NotMeasuredError(
            "tokenizers is not installed: pip install -c constraints.txt -e '.[bench]'"
        ) from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


class Lines(Dataset[list[int]]):
    """Samples that are the numbers of a line's tokens."""

    def __init__(self, lines: Sequence[str], tokenizer: Any) -> None:
        self.lines = list(lines)
        self.tokenizer = tokenizer

    def __getitem__(self, index: int) -> list[int]:
        ids: list[int] = self.tokenizer.encode(self.lines[index % len(self.lines)]).ids
        return ids


def pad(samples: list[list[int]]) -> dict[str, torch.Tensor]:
    """A batch padded to its longest line, and which of it is text."""
    lengths = torch.tensor([len(sample) for sample in samples])
    longest = int(lengths.max())
    padded = [sample + [0] * (longest - len(sample)) for sample in samples]
    mask = torch.arange(longest) < lengths[:, None]
    return {"input_ids": torch.tensor(padded), "attention_mask": mask.long()}
