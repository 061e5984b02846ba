"""A worker's part in the life of a slot, played in the test's own process."""

from __future__ import annotations

import numpy as np

from penstock.transport.arena import Arena
from penstock.transport.backing import Bytes
from penstock.transport.writer import SlotWriter


def write(arena: Arena, content: bytes, *, seat: int = 0) -> tuple[int, int]:
    """Acquires a slot and fills it, and returns its number and the bytes that are used."""
    number, capacity, _ = arena.acquire(seat)
    writer = SlotWriter(arena.descriptor, arena.stride)
    writer.begin(number, capacity)
    writer.allocate(len(content))[:] = np.frombuffer(content, np.uint8)
    arena.note_capacity(number, writer.capacity)
    return number, writer.used


def lend(arena: Arena, content: bytes, *, seat: int = 0) -> Bytes:
    """The user's view of a slot with this content."""
    return arena.lend(*write(arena, content, seat=seat))
