"""Samples → batch: torch's own rules, with the memory of the batch chosen beforehand."""

from penstock.collate.into_slot import SlotCollate
from penstock.collate.rows import Allocate, Rows

__all__ = ["Allocate", "Rows", "SlotCollate"]
