"""What happened and how long it took.

    statistics.py      counts and times of one epoch
    progress_line.py   one line of text that says how far it is

What shows more than text lives where it is shown.
"""

from penstock.observe.progress_line import ProgressLine
from penstock.observe.statistics import Statistics, StatisticsRecorder

__all__ = ["ProgressLine", "Statistics", "StatisticsRecorder"]
