"""Minutes of random loaders under random faults, at a given seed: `make soak`.

No part of the test suite: a test says what must hold, and this looks for what nobody thought of.
Each scenario draws a loader and what befalls it (`scenario.py`), is run while workers are killed
and stopped (`faults.py`), and every sample is accounted for (`account.py`, `drive.py`).
"""
