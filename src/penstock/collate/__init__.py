"""Samples → batch: torch's own rules, with the memory of the batch chosen beforehand."""

from penstock.collate.into_slot import SlotCollate, add_functions, programs_functions
from penstock.collate.rows import Allocate, Rows

__all__ = ["Allocate", "Rows", "SlotCollate", "add_functions", "programs_functions"]
