"""What happens to a batch, from the plan to its delivery: a state machine without I/O.

protocol.py    what the scheduler asks of a plan, and what it hands over
lease.py       what is lent to a worker, and what may be ordered about it
batch.py       the life of a batch: its states, and what is known of it
hunt.py        the search for the sample that ends whatever worker makes it
inquest.py     what follows from the death of a worker
lending.py     to which worker a batch is lent, and when
relief.py      what is given up where memory is short
window.py      how many batches may be on their way at once
splitting.py   batches that several workers make
pace.py        what batches cost, and whether that pays
bundling.py    small batches that are lent together
scheduler.py   which reply counts, and what may be delivered next
ledger.py      what was skipped, and how much of that is allowed
"""

from penstock.schedule.bundling import Bundling
from penstock.schedule.inquest import MAX_DEATHS_PER_BATCH, Inquest
from penstock.schedule.lease import (
    Amend,
    Command,
    Death,
    Discard,
    Fill,
    Issue,
    Lease,
    Recall,
    Rewind,
)
from penstock.schedule.ledger import Ledger, Replacement
from penstock.schedule.pace import Pace
from penstock.schedule.protocol import Delivery, DonorPlan, Plan
from penstock.schedule.scheduler import Scheduler
from penstock.schedule.splitting import FIRST_PART, Splitting
from penstock.schedule.window import Window

__all__ = [
    "FIRST_PART",
    "MAX_DEATHS_PER_BATCH",
    "Amend",
    "Bundling",
    "Command",
    "Death",
    "Delivery",
    "Discard",
    "DonorPlan",
    "Fill",
    "Inquest",
    "Issue",
    "Lease",
    "Ledger",
    "Pace",
    "Plan",
    "Recall",
    "Replacement",
    "Rewind",
    "Scheduler",
    "Splitting",
    "Window",
]
