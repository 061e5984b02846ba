"""Replies that no worker sends: each sample once all the same, or an error that says so.

A real engine and a real epoch, with workers that the test plays. One reply is damaged or false; the
workers that take the place of those that sent it are honest.
"""

from __future__ import annotations

import logging
import pickle
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engines.protocol import Died, EpochStart
from penstock.epoch.run import EpochRun
from penstock.epoch.settings import EpochSettings
from penstock.errors import PenstockError
from penstock.options import ErrorPolicy
from penstock.plan import GivenBatches
from penstock.transport.frames import Kind
from tests.engines.driving import job_of, lease, poll_for
from tests.engines.scripted import ScriptedEngine, packed

pytestmark = pytest.mark.usefixtures("no_leaks")

BATCHES = [[4 * number, 4 * number + 2] for number in range(3)] + [
    [4 * number + 1] for number in range(3)
]
SEATS = 2


@pytest.fixture(autouse=True)
def _deaths_are_not_logged():
    logging.getLogger("penstock").setLevel(logging.ERROR)
    yield
    logging.getLogger("penstock").setLevel(logging.NOTSET)


def run(script) -> tuple[list[list[int] | PenstockError], int]:
    """What each `next()` brings, and how many workers were replaced."""
    engine = ScriptedEngine(job_of([], seats=SEATS), script)
    engine.start()
    epoch = EpochRun(
        engine,
        GivenBatches(BATCHES, batched=True),
        EpochSettings(seed=0, window=4, policy=ErrorPolicy("raise")),
        workers=SEATS,
        release=lambda: None,
        began=time.perf_counter(),
    )
    outcomes: list[Any] = []
    try:
        while True:
            try:
                outcomes.append(content(next(epoch)))
            except StopIteration:
                return outcomes, epoch.recorder.restarts
            except PenstockError as error:
                outcomes.append(error)
            assert len(outcomes) <= len(BATCHES)
    finally:
        epoch.close()
        engine.close()


def content(batch: Any) -> list[int]:
    """The indices that a batch was made of, whose samples must be whole."""
    for sample in batch:
        assert (sample == sample[0]).all()
    return [int(sample[0]) for sample in batch]


def once(batch, change):
    """A script that sends what `change` makes of the first reply to one batch."""

    def script(lease, fields):
        false = lease.batch == batch and lease.attempt == 0
        return change(dict(fields)) if false else packed(fields)

    return script


def test_the_scripted_workers_are_honest_without_a_script():
    assert run(lambda lease, fields: packed(fields)) == (BATCHES, 0)


@given(st.integers(0, 5), st.data())
@settings(max_examples=150)
def test_bytes_within_a_reply_cost_a_worker_and_no_sample(batch, data):
    foreign = data.draw(st.binary(min_size=1, max_size=100))

    def change(fields):
        reply = packed(fields)
        at = data.draw(st.integers(0, len(reply) - 1))
        return reply[:at] + foreign + reply[at:] + bytes(100)

    outcomes, restarts = run(once(batch, change))
    assert outcomes == BATCHES
    assert restarts == 1


@given(st.integers(0, 5), st.data())
@settings(max_examples=100)
def test_a_header_with_another_bit_costs_a_worker_and_no_sample(batch, data):
    def change(fields):
        reply = bytearray(packed(fields))
        reply[data.draw(st.integers(0, 50))] ^= 1 << data.draw(st.integers(0, 7))
        return bytes(reply)

    outcomes, restarts = run(once(batch, change))
    assert outcomes == BATCHES
    assert restarts == 1


NEGATIVE = st.integers(-(1 << 63), -1)
LIES = st.one_of(
    st.tuples(st.just("epoch"), st.sampled_from([0, 2, 3, 1 << 31])),
    st.tuples(st.just("batch"), NEGATIVE | st.integers(6, 20)),
    st.tuples(st.just("attempt"), st.integers(1, 1 << 31)),
    st.tuples(st.just("slot"), st.just(-1) | st.integers(10, 1 << 30)),
    st.tuples(st.just("used"), NEGATIVE | st.integers(1 << 22, 1 << 62)),
    st.tuples(st.just("capacity"), NEGATIVE | st.integers(1 << 44, 1 << 62)),
    st.tuples(
        st.just("kind"),
        st.sampled_from(
            [
                0,
                15,
                25,
                999,
                Kind.GRANT,
                Kind.LEASE,
                Kind.RECALL,
                Kind.PROBED,
                Kind.DROPPED,
                Kind.ENDED,
            ]
        ),
    ),
)


@given(st.integers(0, 5), LIES)
@settings(max_examples=300)
def test_a_reply_with_a_false_field_costs_a_worker_and_no_sample(batch, lie):
    field, value = lie
    outcomes, restarts = run(once(batch, lambda fields: packed({**fields, field: value})))
    assert outcomes == BATCHES
    assert restarts == 1


@given(st.integers(0, 5), st.integers(0, 1 << 62), st.integers(0, 1 << 62))
@settings(max_examples=150)
def test_a_slot_that_is_said_to_be_larger_than_it_is_never_ends_the_parent(batch, used, more):
    # Reading memory that the file does not have is a SIGBUS.
    def change(fields):
        return packed({**fields, "used": used, "capacity": min(used + more, (1 << 63) - 1)})

    outcomes, _ = run(once(batch, change))
    for outcome, expected in zip(outcomes, BATCHES, strict=True):
        assert outcome == expected or isinstance(outcome, PenstockError)


# No random bytes: a pickle is a program, and only those of a loader's own workers are run.
NONSENSE = st.sampled_from(
    [None, 0, "x", (), [1], (1, 2), {"a": 1}, (None,) * 5, (1, 2, 3, 4, 5), [(0, 1)], object]
)
BODIES = st.one_of(
    NONSENSE.map(lambda value: plain_body(value)),
    NONSENSE.map(lambda value: plain_body(value)[:-1]),
    st.binary(max_size=16),
)


def plain_body(value: object) -> bytes:
    meta = pickle.dumps(value, 5)
    return b"\0\0\0\0" + len(meta).to_bytes(4, "little") + b"\xff" * 8 + meta


@given(
    st.integers(0, 5),
    BODIES,
    st.sampled_from([Kind.DONE, Kind.FAILED, Kind.WITHHELD, Kind.STARTLESS]),
    st.booleans(),
)
@settings(max_examples=300)
def test_a_body_of_something_else_is_never_taken_for_a_batch(batch, body, kind, in_slot):
    def change(fields):
        used = fields["used"] if in_slot and kind == Kind.DONE else 0
        return packed({**fields, "kind": kind, "body": body, "used": used})

    outcomes, restarts = run(once(batch, change))
    for outcome, expected in zip(outcomes, BATCHES, strict=True):
        assert outcome == expected or isinstance(outcome, PenstockError)
    # A batch that cannot be opened is an error of its own; of what cannot be read at all nothing
    # is known, and the worker is replaced.
    assert restarts == (kind != Kind.DONE)


@given(st.integers(0, 5), st.integers(2, 3))
@settings(max_examples=40)
def test_a_reply_that_comes_again_costs_a_worker_and_no_sample(batch, times):
    outcomes, restarts = run(once(batch, lambda fields: packed(fields) * times))
    assert outcomes == BATCHES
    assert restarts == 1


def test_the_death_names_what_was_wrong():
    def script(lease, fields):
        return packed({**fields, "slot": 77})

    engine = ScriptedEngine(job_of([], seats=1), script)
    try:
        engine.start()
        engine.begin_epoch(EpochStart(0))
        engine.submit(lease(0, [1]))
        (died,) = poll_for(engine, Died)
        fault = died.certificate.fault
        assert fault.startswith("was ended, since it answers for slot 77, and was lent slot ")
    finally:
        engine.close()
