"""Where leases run, behind one protocol.

protocol.py     what every engine does, and what it reports
job.py          what is to be done with a dataset: the same for every engine
fetch.py        a lease → a batch, with the policy for bad samples
randomness.py   the same random numbers for a sample wherever it is made
failure.py      an exception on its way from a worker to the training loop
inline.py       in the training process itself
process.py      in worker processes: the parent's side
worker.py       … and the worker's
launch.py       how worker processes are started, under each start method
payload.py      the dataset on its way to the workers: serialised once
preload.py      what a fork server imports ahead
"""
