"""Several loaders at once: the workers of all of them are busy while one batch is awaited.

    loader "a" ──workers──> batches ─┐  whose turn?
    loader "b" ──workers──> batches ─┼─────────────> (name, batch)
    loader "c" ──workers──> batches ─┘

combined.py    the iterator: which loader comes next
source.py      one of the loaders, and how far it is
arguments.py   what can be combined
"""

from penstock.combine.combined import Combined, concurrent

__all__ = ["Combined", "concurrent"]
