"""Where leases run, behind one protocol.

protocol.py     what every engine does, and what it reports
job.py          what is to be done with a dataset: the same for every engine

fetch.py        a lease of a map-style dataset → what became of it
streaming.py    the same for a stream
collation.py    the last step of both: samples → batch
outcome.py      what became of a lease
randomness.py   the same random numbers for a sample wherever it is made
failure.py      an exception on its way from a worker to the training loop
naming.py       what a sample is called in a message

inline.py       leases in the training process itself
process.py      leases in worker processes: the parent's side
starter.py      starts the workers
early.py        the next epoch, begun in workers that have nothing to do
seat.py         a worker's place: the process in it, its pipes, and its end
crew.py         all seats, with what they hold of the machine: ends them without the engine
outbox.py       messages to workers, sent without waiting
resumption.py   where a worker begins that takes the place of one that died
death.py        what is known of a worker's end
shared_result.py   a worker's batch in the parent, until it is opened
worker.py       the worker's side
lifeline.py     what ends a worker whose training process is gone
parent_ends.py  what of a worker the training process's other children must not hold
launch.py       how worker processes are started, under each start method
reaping.py      the end of worker processes, and their exit codes
payload.py      the dataset on its way to the workers: serialised once
shared_lists.py large lists in the dataset: one copy that all workers read
boot.py         the first thing that a spawned worker runs
preload.py      what a fork server imports ahead
heap.py         how a worker keeps memory for the next sample
"""
