"""The rows of the table, a module for each kind."""

from __future__ import annotations

from benchmarks.row import Row
from benchmarks.rows import (
    consumer,
    memory,
    microseconds,
    processor,
    resuming,
    starting,
    stragglers,
    transport,
)

ROWS: tuple[Row, ...] = (
    transport.SCALARS,
    transport.UINT8,
    transport.FLOAT32,
    transport.STRUCTURES,
    processor.PHOTOGRAPHS,
    processor.IMAGE_DATASET,
    processor.TEXT,
    stragglers.ROW,
    starting.FIRST_BATCH,
    starting.BETWEEN_EPOCHS,
    memory.ROW,
    resuming.ROW,
    consumer.ROW,
    microseconds.ROW,
)
