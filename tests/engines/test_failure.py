from __future__ import annotations

import pickle
import threading
import traceback

import pytest

from penstock.certificate import DeathCertificate
from penstock.engines.failure import (
    describe,
    describe_made,
    end_or_raise,
    exception_for,
    revive,
    sample_error,
    to_raise,
)
from penstock.errors import SampleError, SampleKilledWorker


class NeedsTwo(Exception):
    """Pickles, and does not unpickle: its arguments are not those of `__init__`."""

    def __init__(self, name, number):
        super().__init__(f"{name} has {number}")


class HoldsLock(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class SpeaksNumbers(Exception):
    def __str__(self):
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - what it is for


class ChangesType(Exception):
    def __reduce__(self):
        return ValueError, ("something else",)


class BreaksUnpickling(Exception):
    def __reduce__(self):
        return int, ("no number",)


class HasFields(Exception):
    def __init__(self, message, code=0):
        super().__init__(message)
        self.code = code

    def __reduce__(self):
        return HasFields, (self.args[0], self.code)


class TextInAttribute(Exception):
    def __init__(self, message):
        self.message = message

    def __str__(self):
        return self.message


class UserKeyError(KeyError):
    pass


class Leaves(BaseException):
    pass


def caught(error, **where):
    """The description of an exception that was raised two calls deep."""

    def user_code():
        raise error

    try:
        user_code()
    except BaseException as raised:
        return describe(raised, **where)


def travelled(failure):
    return pickle.loads(pickle.dumps(failure))


def raised_for_sample(error, **where):
    failure = travelled(caught(error, index=3, source="photos/3.jpg", **where))
    return exception_for(sample_error(failure))


# Python 3.10 has no notes to tell the story in.
HAS_NOTES = hasattr(Exception, "add_note")


def told(error):
    """All that a traceback would say of an exception."""
    return "".join(traceback.format_exception(error))


def test_a_stop_iteration_cannot_end_the_epoch():
    raised = raised_for_sample(StopIteration("early"), seat=2)
    assert type(raised) is RuntimeError
    assert "Caught StopIteration in DataLoader worker process 2." in str(raised)
    assert "StopIteration at sample 3" in str(raised)


def test_without_a_worker_the_cause_is_the_exception_itself():
    error = HoldsLock("locked")
    record = sample_error(caught(error, index=3, source="photos/3.jpg"))
    assert record.cause is error
    assert type(exception_for(record)) is HoldsLock


KEPT = [
    ValueError("bad"),
    OSError(2, "No such file", "a.jpg"),
    ZeroDivisionError("division"),
    KeyError("missing"),
    UserKeyError("missing"),
    IndexError("out"),
    HasFields("with code", 5),
    AssertionError(),
    Leaves("goodbye"),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("error", KEPT, ids=lambda error: type(error).__name__)
def test_the_users_type_is_raised_with_the_whole_story(error):
    raised = raised_for_sample(error, seat=2)
    assert type(raised) is type(error)
    text = str(raised)
    for part in (
        "worker process 2.",
        "sample 3",
        "photos/3.jpg",
        "in user_code",
        "raise error",
        str(error),
    ):
        assert part in text


@pytest.mark.parametrize("error", KEPT, ids=lambda error: type(error).__name__)
def test_the_record_of_the_sample_is_the_cause(error):
    record = raised_for_sample(error, seat=2).__cause__
    assert isinstance(record, SampleError)
    assert (record.index, record.source, record.worker) == (3, "photos/3.jpg", 2)
    assert type(record.cause) is type(error)
    assert record.cause.args == error.args
    assert "in user_code" in record.traceback


@pytest.mark.parametrize("where", [{}, {"seat": 2}])
def test_an_exception_that_makes_its_text_of_its_attributes_tells_the_story_too(where):
    raised = raised_for_sample(TextInAttribute("deep inside"), **where)
    assert type(raised) is (TextInAttribute if HAS_NOTES else RuntimeError)
    for part in ("deep inside", "sample 3 (photos/3.jpg)", "in user_code"):
        assert part in told(raised)


@pytest.mark.parametrize("where", [{}, {"seat": 2}])
def test_what_an_exception_knows_is_raised_with_it(where):
    assert raised_for_sample(HasFields("with code", 5), **where).code == 5
    assert raised_for_sample(OSError(2, "No such file", "a.jpg"), **where).errno == 2


def test_what_an_exception_knows_is_kept_in_the_record():
    record = raised_for_sample(HasFields("with code", 5)).__cause__
    assert record.cause.code == 5
    record = raised_for_sample(OSError(2, "No such file", "a.jpg")).__cause__
    assert record.cause.filename == "a.jpg"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NeedsTwo("x", 2), "NeedsTwo: x has 2"),
        (HoldsLock("locked"), "HoldsLock: locked"),
        (ChangesType("odd"), "ChangesType: odd"),
        (BreaksUnpickling("odd"), "BreaksUnpickling: odd"),
    ],
)
def test_an_exception_that_cannot_travel_is_told_by_its_name_and_text(error, name):
    raised = raised_for_sample(error, seat=1)
    assert type(raised) is RuntimeError
    assert f"{__name__}.{name}" in str(raised)
    assert "in user_code" in str(raised)


def test_the_line_that_programs_know_names_the_type_also_of_an_exception_that_cannot_travel():
    failure = travelled(caught(NeedsTwo("x", 2), index=3, source="photos/3.jpg", seat=1))
    assert str(to_raise(failure)).startswith("Caught NeedsTwo in DataLoader worker process 1.\n")


def test_in_a_loader_a_stop_iteration_ends_the_epoch_and_anything_else_is_told():
    ended = end_or_raise(travelled(caught(StopIteration("early"), index=3, source="3", seat=1)))
    assert type(ended) is StopIteration
    assert ended.args == ("early",)
    raised = end_or_raise(travelled(caught(ValueError("bad"), index=3, source="3", seat=1)))
    assert type(raised) is ValueError
    assert "sample 3" in str(raised)


def test_an_exception_of_a_local_class_is_told_by_its_name_and_text():
    class LocalError(Exception):
        pass

    raised = raised_for_sample(LocalError("here"), seat=1)
    assert type(raised) is RuntimeError
    assert "LocalError: here" in str(raised)


def test_an_exception_whose_type_takes_other_arguments_is_told_all_the_same():
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    raised = raised_for_sample(error, seat=1)
    assert type(raised) is (UnicodeDecodeError if HAS_NOTES else RuntimeError)
    assert "invalid start byte" in told(raised)
    assert "sample 3 (photos/3.jpg)" in told(raised)
    record = raised.__cause__
    assert isinstance(record, SampleError)
    assert type(record.cause) is UnicodeDecodeError


@pytest.mark.parametrize("error", [Mute("x"), SpeaksNumbers("x")], ids=repr)
def test_an_exception_that_cannot_say_what_it_is_hides_nothing_else(error):
    for raised in (
        raised_for_sample(error, seat=1),
        to_raise(travelled(caught(error, seat=1))),
    ):
        assert type(raised) is (type(error) if HAS_NOTES else RuntimeError)
        assert "in user_code" in told(raised)


def test_the_message_of_a_key_error_is_readable():
    text = str(raised_for_sample(KeyError("missing")))
    assert "\\n" not in text
    assert "\n" in text
    assert text.startswith("KeyError at sample 3 (photos/3.jpg)")


def test_the_traceback_begins_with_the_users_code():
    def user_code():
        raise ValueError("bad")

    def ours():
        try:
            user_code()
        except ValueError as error:
            return describe(error)

    failure = ours()
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.splitlines()[1].endswith("in user_code")


def test_the_causes_of_an_exception_are_in_its_traceback():
    def user_code():
        try:
            raise OSError("disk")
        except OSError as error:
            raise ValueError("bad") from error

    try:
        user_code()
    except ValueError as error:
        failure = describe(error)
    assert "OSError: disk" in failure.traceback
    assert "direct cause" in failure.traceback


def test_of_a_long_traceback_the_innermost_end_is_kept():
    def deep(levels):
        if levels:
            # Two turns, since repeated lines are folded.
            return deeper(levels - 1)
        raise ValueError("x" * 15_000)

    def deeper(levels):
        return deep(levels)

    with pytest.raises(ValueError, match="x") as info:
        deep(300)
    failure = describe(info.value)
    assert len(failure.traceback) <= 20_000
    assert failure.traceback.endswith("x" * 15_000 + "\n")


@pytest.mark.parametrize("error", KEPT, ids=lambda error: type(error).__name__)
def test_a_failure_of_a_whole_batch_keeps_type_text_and_worker(error):
    raised = to_raise(travelled(caught(error, seat=4)))
    assert type(raised) is type(error)
    for part in (
        "in DataLoader worker process 4.",
        type(error).__name__,
        str(error),
        "in user_code",
    ):
        assert part in str(raised)
    assert raised.__cause__ is None


def test_in_the_training_process_no_worker_is_named():
    assert "worker" not in str(raised_for_sample(ValueError("bad")))
    assert "worker" not in str(to_raise(caught(ValueError("bad"))))


def for_the_sample(failure):
    return exception_for(sample_error(failure))


@pytest.mark.parametrize("raised_by", [to_raise, for_the_sample])
def test_an_error_that_nobody_raised_says_what_it_says_and_nothing_twice(raised_by):
    certificate = DeathCertificate(1, 4711, -11, index=3, source="3.jpg", stack="in decode")
    made = SampleKilledWorker("worker 1 was killed by SIGSEGV", certificate)
    raised = raised_by(travelled(describe_made(made, index=3, source="3.jpg", seat=1)))
    assert type(raised) is SampleKilledWorker
    assert raised.certificate == certificate
    assert str(raised) == str(made)
    assert told(raised).count("in decode") == 1
    assert "Original traceback" not in told(raised)
    record = raised.__cause__
    assert isinstance(record, SampleError)
    assert (record.index, record.source, record.worker) == (3, "3.jpg", 1)
    assert type(record.cause) is SampleKilledWorker
    # A cycle would keep alive whatever the exception was raised through.
    assert record.cause is not raised


def test_reviving_never_raises():
    failure = caught(ValueError("bad"))
    for pickled in (b"", b"garbage", failure.pickled[:-3], pickle.dumps("text")):
        damaged = type(failure)(pickled, "ValueError", "bad", "")
        revived = revive(damaged)
        assert type(revived) is RuntimeError
        assert str(revived) == "ValueError: bad"
