"""What happened and how long it took.

    statistics.py   counts and times of one epoch
    progress.py     how far an epoch is, in words
    words.py        numbers, durations and names as they are written everywhere

What shows more than words lives where it is shown.
"""

from penstock.observe.progress import Progress, ProgressLines
from penstock.observe.statistics import Statistics, StatisticsRecorder

__all__ = ["Progress", "ProgressLines", "Statistics", "StatisticsRecorder"]
