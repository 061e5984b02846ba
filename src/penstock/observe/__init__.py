"""What happened and how long it took.

statistics.py   counts and times of one epoch
"""

from penstock.observe.statistics import Statistics, StatisticsRecorder

__all__ = ["Statistics", "StatisticsRecorder"]
