"""Samples that were set aside, in a state and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from penstock.certificate import DeathCertificate
from penstock.engines.failure import Failure, describe, describe_made, revive, sample_error
from penstock.engines.quarantine import Quarantine
from penstock.errors import SampleKilledWorker, SampleTimeout, StateError

CERTIFICATE = DeathCertificate(1, 4711, -11)


def killed(index: object, kind=SampleKilledWorker) -> Failure:
    error = kind(f"ends its worker: {index}", CERTIFICATE)
    return describe_made(error, index=index, source=f"{index}.jpg", seat=1)


def through_json(quarantine: Quarantine) -> Quarantine:
    return Quarantine.of_state(json.loads(json.dumps(quarantine.state())))


@pytest.mark.parametrize("kind", [SampleKilledWorker, SampleTimeout])
@pytest.mark.parametrize("index", [7, -1, "cat/7.jpg"])
def test_what_was_set_aside_is_so_after_a_state(kind, index):
    again = through_json(Quarantine({index: killed(index, kind)}))
    (failure,) = again.values()
    assert list(again) == [index]
    assert isinstance(failure, Failure)
    record = sample_error(failure)
    assert (record.index, record.source) == (index, f"{index}.jpg")
    assert type(record.cause) is kind
    assert record.cause.message == f"ends its worker: {index}"  # type: ignore[attr-defined]


def test_a_number_of_numpys_is_a_number():
    again = through_json(Quarantine({np.int64(7): killed(np.int64(7))}))
    assert 7 in again
    assert np.int64(7) in again


def test_a_state_of_a_state_is_the_same():
    state = Quarantine({1: killed(1), "b": killed("b", SampleTimeout)}).state()
    assert Quarantine.of_state(state).state() == state
    assert len(state) == 2


def test_an_empty_quarantine_is_an_empty_state():
    assert Quarantine().state() == []
    assert Quarantine.of_state([]) == {}


def test_what_cannot_be_named_in_a_state_is_left_out_of_it():
    quarantine = Quarantine({(1, 2): killed((1, 2)), 3: killed(3)})
    assert [entry["index"] for entry in quarantine.state()] == [3]


def test_what_is_no_death_is_left_out():
    error = describe(ValueError("bad"), index=1, source="1.jpg", seat=0)
    assert Quarantine({1: error, 2: "something else"}).state() == []


@pytest.mark.parametrize(
    "state",
    [
        [None],
        [3],
        ["text"],
        [{}],
        [{"index": 1, "source": "", "error": "ValueError", "message": ""}],
        [{"index": [1], "source": "", "error": "SampleTimeout", "message": ""}],
        [{"index": 1, "error": "SampleTimeout", "message": ""}],
    ],
)
def test_what_no_quarantine_has_said_is_a_damaged_state(state):
    with pytest.raises(StateError, match="this state is damaged"):
        Quarantine.of_state(state)


def test_what_comes_of_a_state_has_no_certificate_and_says_all_the_same_why():
    error = revive(through_json(Quarantine({1: killed(1)}))[1])  # type: ignore[arg-type]
    assert isinstance(error, SampleKilledWorker)
    assert error.certificate is None
    assert str(error) == "ends its worker: 1"
