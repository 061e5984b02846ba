"""How far an epoch has come, and what it takes to go on from there.

    progress.py      what was handed over, in an account that each delivery adds to
    marks.py         what is known of batches until then
    randomness.py    the generators that an order is drawn from: their states, kept and put back
    epoch_numbers.py the number of the epoch, as samplers are told it by the loader or by others
    own_state.py     what datasets and samplers can tell, and be told, of themselves
    state.py         all of it as plain JSON, and the checks before it is believed
    memory.py        what a loader remembers of how its epochs began

Nothing here starts, reads or waits for anything.
"""

from penstock.checkpoint.marks import Marks
from penstock.checkpoint.memory import LoaderMemory
from penstock.checkpoint.own_state import Snapshots, has_state, pack, tell_epoch, unpack
from penstock.checkpoint.progress import Mark, Progress, StreamMark, StreamProgress
from penstock.checkpoint.randomness import RandomSources
from penstock.checkpoint.state import Identity, check_state, make_state

__all__ = [
    "Identity",
    "LoaderMemory",
    "Mark",
    "Marks",
    "Progress",
    "RandomSources",
    "Snapshots",
    "StreamMark",
    "StreamProgress",
    "check_state",
    "has_state",
    "make_state",
    "pack",
    "tell_epoch",
    "unpack",
]
