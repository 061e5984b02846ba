"""One epoch: what the scheduler orders is carried to an engine, and what that reports back.

run.py           what the training loop iterates
wheel.py         what turns inside its `next()`
settings.py      how an epoch is run
starts.py        where its streams, or copies of the dataset, begin
restarts.py      whether, and when, a worker that died is replaced
account.py       what is remembered of batches until they are handed over
bad_samples.py   what becomes of samples that cannot be made
texts.py         what the user is told
"""

from penstock.epoch.run import EpochRun
from penstock.epoch.settings import EpochSettings

__all__ = ["EpochRun", "EpochSettings"]
