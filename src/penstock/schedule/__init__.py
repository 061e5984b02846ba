"""What happens to a batch, from the plan to its delivery: a state machine without I/O.

protocol.py    what the scheduler asks of a plan, and what it hands over
lease.py       what is lent to a worker, and what may be ordered about it
batch.py       the life of a batch: its states, and what is known of it
scheduler.py   who works on what, which reply counts, what may be delivered next
ledger.py      what was skipped, and how much of that is allowed
"""

from penstock.schedule.lease import Amend, Command, Discard, Fill, Issue, Lease, Recall
from penstock.schedule.ledger import Ledger, Replacement
from penstock.schedule.protocol import Delivery, DonorPlan, Plan
from penstock.schedule.scheduler import MAX_DEATHS_PER_BATCH, Scheduler

__all__ = [
    "MAX_DEATHS_PER_BATCH",
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
