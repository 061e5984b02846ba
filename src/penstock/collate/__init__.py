"""Samples → batch: torch's own rules, with the memory of the batch chosen beforehand."""

from penstock.collate.into_slot import SlotCollate

__all__ = ["SlotCollate"]
