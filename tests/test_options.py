"""Settings that are checked before any work starts."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader as TorchDataLoader

from penstock.errors import OptionError
from penstock.options import (
    DEFAULT_MAX_RESTARTS,
    LEAST_MEMORY_BUDGET_BYTES,
    UNKNOWN_LENGTH_FLOOR_SAMPLES,
    ErrorPolicy,
    Supervision,
    check_arguments,
    check_count,
)

# What to do about bad samples.


def test_by_default_a_bad_sample_is_an_error_and_one_in_a_hundred_may_be_skipped():
    assert ErrorPolicy() == ErrorPolicy("raise", 0.01)


def test_a_policy_is_frozen():
    policy: Any = ErrorPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.on_error = "skip"


def named(value: object) -> str:
    """The name of a case, which is the same in every run."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))


class Endless:
    """A dataset that does not say how long it is."""

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("on_error", ["ignore", "", "SKIP", None, True, 1])
def test_what_is_no_policy_is_named_with_the_choices(on_error: Any):
    with pytest.raises(OptionError, match=r"on_error=.*'raise', 'skip', or a function") as caught:
        ErrorPolicy(on_error)
    assert repr(on_error) in str(caught.value)


@pytest.mark.parametrize(
    ("on_error", "tolerant"), [("raise", False), ("skip", True), (lambda error: "raise", True)]
)
def test_an_epoch_can_go_on_unless_every_error_is_raised(on_error, tolerant):
    assert ErrorPolicy(on_error).tolerant is tolerant


@pytest.mark.parametrize("limit", [True, False, "1%", [1], 1j])
def test_a_limit_that_is_no_number_is_refused(limit: Any):
    with pytest.raises(OptionError, match="give a count"):
        ErrorPolicy("skip", limit)


@pytest.mark.parametrize("limit", [-1, -0.5, 1.5, 2.0, float("nan"), float("inf"), np.float64(3)])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(OptionError, match=r"max_skipped=.*a fraction from 0\.0 to 1\.0"):
        ErrorPolicy("skip", limit)


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        (0, 0),
        (1, 1),
        (7, 7),
        (10**6, 10**6),
        (np.int64(7), 7),
        (0.0, 0),
        (0.25, 50),
        (1.0, 200),
        (np.float32(0.25), 50),
        (Fraction(1, 4), 50),
        (None, float("inf")),
    ],
)
def test_a_whole_number_is_a_count_and_any_other_a_fraction_of_the_epoch(limit, allowed):
    assert ErrorPolicy("skip", limit).allowed(200, 0) == allowed


def test_how_much_was_read_does_not_matter_where_the_length_is_known():
    policy = ErrorPolicy("skip", 0.5)
    assert policy.allowed(10, 10**6) == 5
    assert policy.allowed(0, 10**6) == 0


@pytest.mark.parametrize("read", [0, 1, UNKNOWN_LENGTH_FLOOR_SAMPLES])
def test_of_an_unknown_length_a_floor_is_assumed(read):
    allowed = ErrorPolicy("skip", 0.5).allowed(None, read)
    assert allowed == UNKNOWN_LENGTH_FLOOR_SAMPLES / 2


def test_beyond_the_floor_what_was_read_stands_for_an_unknown_length():
    read = UNKNOWN_LENGTH_FLOOR_SAMPLES + 500
    assert ErrorPolicy("skip", 0.5).allowed(None, read) == read / 2


def test_a_count_does_not_depend_on_the_length():
    assert ErrorPolicy("skip", 3).allowed(None, 10**6) == 3


# What workers may take.


def test_by_default_workers_are_replaced_many_times_and_nothing_else_is_bounded():
    assert Supervision() == Supervision(DEFAULT_MAX_RESTARTS, None, None)
    assert DEFAULT_MAX_RESTARTS >= 100


def test_what_workers_may_take_is_frozen():
    supervision: Any = Supervision()
    with pytest.raises(dataclasses.FrozenInstanceError):
        supervision.max_restarts = 3


@pytest.mark.parametrize(
    "settings",
    [
        {"max_restarts": 0},
        {"max_restarts": np.int64(10)},
        {"sample_timeout": 0.001},
        {"sample_timeout": 3},
        {"sample_timeout": np.float32(0.5)},
        {"memory_budget": LEAST_MEMORY_BUDGET_BYTES},
        {"memory_budget": np.int64(1 << 40)},
    ],
    ids=named,
)
def test_bounds_that_can_be_kept_pass(settings):
    supervision = Supervision(**settings)
    assert {name: getattr(supervision, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_restarts": -1}, "max_restarts=-1 must be at least 0; give how many workers"),
        (
            {"max_restarts": 1.5},
            "max_restarts=1.5: a whole number .* may be replaced in an epoch, 0",
        ),
        ({"max_restarts": None}, "max_restarts=None: a whole number is expected"),
        ({"max_restarts": True}, "max_restarts=True: a whole number is expected"),
        ({"sample_timeout": 0}, "sample_timeout=0: give seconds .* finite number above 0, or None"),
        ({"sample_timeout": -0.5}, "sample_timeout=-0.5: give seconds"),
        ({"sample_timeout": float("nan")}, "sample_timeout=nan: .* a finite number"),
        (
            {"sample_timeout": float("inf")},
            "sample_timeout=inf: .* a finite number above 0, or None for any time",
        ),
        ({"sample_timeout": "3"}, "sample_timeout='3'"),
        ({"sample_timeout": True}, "sample_timeout=True"),
        ({"memory_budget": 512}, "memory_budget=512 must be at least 1048576; give bytes, such"),
        ({"memory_budget": 0}, "memory_budget=0 must be at least"),
        ({"memory_budget": 1e9}, "memory_budget=1000000000.0: a whole number is expected"),
        (
            {"memory_budget": "4G"},
            r"memory_budget='4G': a .*; give bytes, such as 8 \* 2\*\*30, or",
        ),
    ],
    ids=named,
)
def test_a_bound_that_cannot_be_kept_is_named_with_the_remedy(settings, message):
    with pytest.raises(OptionError, match=message):
        Supervision(**settings)


@pytest.mark.parametrize("name", ["num_workers", "workers"])
@pytest.mark.parametrize(("bound", "value"), [("sample_timeout", 3), ("memory_budget", 1 << 30)])
def test_what_only_workers_can_keep_to_is_refused_where_there_are_none(bound, value, name):
    supervision = Supervision(**{bound: value})
    with pytest.raises(OptionError, match=rf"^{bound}={value} .*with {name}=0; leave it out"):
        supervision.check_workers(name, 0)
    supervision.check_workers(name, 1)


def test_the_count_of_restarts_needs_no_workers():
    Supervision(max_restarts=0).check_workers("num_workers", 0)


# Counts.


@pytest.mark.parametrize("value", [2, np.int16(2), 7])
def test_a_count_is_returned_as_an_int(value):
    found = check_count("workers", value, least=2, remedy="")
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [2.0, "2", None, True, [2]])
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(OptionError) as caught:
        check_count("workers", value, least=0, remedy="count them")
    assert str(caught.value) == (
        f"workers={value!r}: a whole number is expected, as an int; count them"
    )


def test_a_count_that_is_too_small_is_named_with_the_bound():
    with pytest.raises(OptionError, match="workers=1 must be at least 2; count them"):
        check_count("workers", 1, least=2, remedy="count them")


# A loader's arguments.


def check(**changed: Any) -> None:
    arguments: dict[str, Any] = {
        "dataset": range(3),
        "batch_size": 1,
        "shuffle": None,
        "batch_sampler": None,
        "num_workers": 2,
        "prefetch_factor": None,
        "timeout": 0,
        "seed": None,
    }
    others = {"sampler": None, "collate_fn": None, "worker_init_fn": None}
    check_arguments(**(others | arguments | changed))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_size": None},
        {"num_workers": 0},
        {"num_workers": np.int64(3), "prefetch_factor": 1},
        {"timeout": 0.5},
        {"seed": 0},
        {"seed": 2**70},
        {"dataset": [], "shuffle": False},
        {"dataset": Endless(), "shuffle": True},
        {"dataset": {"a": 1}},
        {"num_workers": 1, "timeout": 0.5},
        # Torch says itself that the two exclude each other.
        {"batch_sampler": [[0]], "batch_size": 0},
    ],
    ids=named,
)
def test_arguments_that_can_be_used_pass(arguments):
    check(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": -1}, "num_workers=-1 must be at least 0; .* use num_workers=0"),
        ({"num_workers": 1.0}, "num_workers=1.0: a whole number is expected"),
        ({"num_workers": True}, "num_workers=True: a whole number is expected"),
        ({"num_workers": 0, "prefetch_factor": 2}, "prefetch_factor=2, num_workers=0"),
        ({"prefetch_factor": 0}, "prefetch_factor=0 must be at least 1"),
        ({"prefetch_factor": "2"}, "prefetch_factor='2': a whole number is expected"),
        ({"timeout": -1}, "timeout=-1; give seconds, or 0"),
        ({"timeout": "1"}, "timeout='1'"),
        ({"timeout": 3, "num_workers": 0}, "timeout=3 bounds the wait for workers"),
        ({"dataset": None}, "dataset=None has no samples to ask for"),
        ({"dataset": iter(())}, "dataset=<tuple_iterator .* has no samples to ask for"),
        ({"dataset": {1, 2}}, "dataset={1, 2} has no samples to ask for"),
        ({"dataset": Endless}, r"dataset=Endless is a class; make an instance: Endless\(\)"),
        ({"timeout": True}, "timeout=True"),
        ({"timeout": None}, "timeout=None"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1; .* got batch_size=0; None gives"),
        ({"batch_size": 2.5}, "batch_size=2.5: a whole number is expected"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"seed": 0.5}, "seed=0.5: a whole number is expected"),
        ({"dataset": [], "shuffle": True}, "num_samples=0: the dataset list is empty"),
    ],
    ids=named,
)
def test_an_argument_that_cannot_be_used_is_named_with_its_value(arguments, message):
    with pytest.raises(OptionError, match=message):
        check(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_workers": -1},
        {"num_workers": 0, "prefetch_factor": 2},
        {"num_workers": 1, "prefetch_factor": -2},
        {"num_workers": 1, "timeout": -1},
        {"batch_size": 0},
        {"batch_size": 1.5},
    ],
    ids=named,
)
def test_programs_that_match_torchs_message_find_it_in_ours(arguments):
    with pytest.raises(ValueError, match=r".") as torchs:
        TorchDataLoader([1, 2, 3], **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r".") as ours:
        check(**arguments)
    torchs_words = str(torchs.value).split(";")[0].split(",")[0]
    assert torchs_words in str(ours.value)
