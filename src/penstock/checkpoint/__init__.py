"""How far an epoch has come, and what it takes to go on from there.

    progress.py     what was handed over, in an account that each delivery adds to
    marks.py        what is known of batches until then
    randomness.py   the generators that an order is drawn from: their states, kept and put back
    state.py        all of it as plain JSON, and the checks before it is believed

Pure data: nothing here starts, reads or waits for anything.
"""

from penstock.resume.marks import Marks
from penstock.resume.progress import Mark, Progress, StreamMark, StreamProgress
from penstock.resume.randomness import RandomSources
from penstock.resume.state import Identity, check_state, make_state

__all__ = [
    "Identity",
    "Mark",
    "Marks",
    "Progress",
    "RandomSources",
    "StreamMark",
    "StreamProgress",
    "check_state",
    "make_state",
]
