"""What happens to a batch, from the plan to its delivery: a state machine without I/O.

lease.py       what is lent to a worker, and what may be ordered about it
scheduler.py   who works on what, which reply counts, what may be delivered next
ledger.py      what was skipped, and how much of that is allowed
"""

from penstock.schedule.lease import Amend, Command, Discard, Fill, Issue, Lease, Recall
from penstock.schedule.ledger import Ledger, Replacement
from penstock.schedule.scheduler import Delivery, DonorPlan, Plan, Scheduler

__all__ = [
    "Amend",
    "Command",
    "Delivery",
    "Discard",
    "DonorPlan",
    "Fill",
    "Issue",
    "Lease",
    "Ledger",
    "Plan",
    "Recall",
    "Replacement",
    "Scheduler",
]
