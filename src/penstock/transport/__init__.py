"""Bytes between processes: batches through recycled shared memory, the rest through pipes.

memory.py    how much memory is left before the kernel starts to kill
arena.py     the shared memory of a loader, in slots that are used again and again
writer.py    a worker's side of a slot: room for the parts of one batch
codec.py     a value of any structure ⇄ a few bytes of meta data and its large buffers
frames.py    messages on a pipe: whole, or not at all
channel.py   the two ends of a pipe that frames go through
"""
