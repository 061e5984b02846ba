"""Bytes between processes: batches through recycled shared memory, the rest through pipes.

groups.py    the control groups whose limits this process has to keep
memory.py    how much memory is left before the kernel starts to kill
budget.py    how much of that batches may take
backing.py   the file behind slots: mapped, grown and emptied
closing.py   descriptors that are closed at the latest when what holds them goes
arena.py     the shared memory of a loader, in slots that are used again and again
writer.py    a worker's side of a slot: room for the parts of one batch
codec.py     a value of any structure ⇄ a few bytes of meta data and its large buffers
pictures.py  the same for images of Pillow's: past the pickle
shared_file.py      a nameless file that is written once and read by all
packing.py   lists of one type → offsets and bytes
unpacking.py the other way, for single items
shared_list.py      what a worker has in the place of a large list
shared_sequence.py  what a program makes of one itself
journal.py   which sample each worker is at
frames.py    messages on a pipe: whole, or not at all
channel.py   the two ends of a pipe that frames go through
"""
