"""Programs that know nothing of penstock, run with it.

    program ──> torch's DataLoader, __iter__ exchanged ──> StandIn: a penstock.DataLoader
                        │                                        made from the loader's attributes
                        └── what penstock cannot do, or refuses ──> torch's own __iter__

torch's class stays what it is, and so do all names of it, its subclasses, and the loaders that
were made before: only how a loader begins an epoch changes. `isinstance`, `type(x) is DataLoader`
and pickling answer as they always did, also in processes that know nothing of this.

installing.py   on and off
stand_in.py     one epoch of a loader of torch's, by penstock; the only file here that imports torch
account.py      counts and times by the place where a loader was made
place.py        where in the user's code that is
report.py       the figures, and the summary in words
"""

from penstock.takeover.installing import Takeover, install, uninstall
from penstock.takeover.place import Place
from penstock.takeover.report import PlaceReport, Report

__all__ = ["Place", "PlaceReport", "Report", "Takeover", "install", "uninstall"]
