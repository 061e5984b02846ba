"""When a worker is replaced, how soon, and when the program is told instead."""

from __future__ import annotations

import signal
import time

import pytest

from penstock.certificate import DeathCertificate
from penstock.engines.failure import revive
from penstock.engines.protocol import Died
from penstock.epoch.restarts import (
    FIRST_DELAY_S,
    LONGEST_DELAY_S,
    MAX_FAILED_STARTS,
    PROMPT_RESTARTS,
    Restarts,
)
from penstock.errors import SampleKilledWorker, SampleTimeout, WorkerDiedError, WorkerStartError
from penstock.schedule import Lease

KILLED = -signal.SIGKILL.value
SEATS = 2
LATE = "was ended for a sample that took longer than 2 s (sample_timeout)"
NONSENSE = "was ended, since it answers for slot 77, and was lent slot 1"


def restarts(
    *, most: int = 1000, ready=range(SEATS), is_stream: bool = False, tolerant: bool = True
) -> Restarts:
    return Restarts(SEATS, ready, most=most, is_stream=is_stream, tolerant=tolerant)


def certificate(seat: int = 0, exit_code: int = KILLED, **known) -> DeathCertificate:
    return DeathCertificate(seat, 4711, exit_code, **known)


def die(account: Restarts, seat: int = 0, **known) -> DeathCertificate:
    """A worker that had its dataset dies."""
    account.note_start(seat)
    death = certificate(seat, **known)
    account.note_death(Died(seat, death))
    return death


def fail_to_start(account: Restarts, seat: int = 0, **known) -> None:
    account.note_death(Died(seat, certificate(seat, **known)))


# How many.


def test_as_many_are_replaced_as_was_asked_for_and_no_more():
    account = restarts(most=3)
    for _ in range(3):
        die(account)
        account.check()
    die(account)
    with pytest.raises(WorkerDiedError, match="max_restarts=3 allows 3 replacements"):
        account.check()


def test_with_none_the_first_death_is_an_error_in_torchs_words():
    account = restarts(most=0)
    known = {"index": 13, "source": "photos/13.jpg", "ran_s": 1.0}
    die(account, exit_code=-signal.SIGSEGV.value, **known)
    with pytest.raises(
        WorkerDiedError,
        match=r"DataLoader worker \(pid\(s\) 4711\) exited unexpectedly: worker 0 \(pid 4711\) was "
        r"killed by SIGSEGV at sample 13 \(photos/13.jpg\), and max_restarts=0 allows no "
        r"replacement\. Most likely native code crashed; .*\. Mend that, or raise max_restarts\n",
    ):
        account.check()


@pytest.mark.parametrize(
    ("most", "nth", "allowed"),
    [
        (1, "2nd", "1 replacement"),
        (2, "3rd", "2 replacements"),
        (3, "4th", "3 replacements"),
        (10, "11th", "10 replacements"),
        (12, "13th", "12 replacements"),
        (20, "21st", "20 replacements"),
        (111, "112th", "111 replacements"),
    ],
)
def test_the_death_that_is_one_too_many_is_told_with_its_place_cause_and_remedy(most, nth, allowed):
    account = restarts(most=most)
    for _ in range(most + 1):
        die(account, 1, exit_code=-signal.SIGSEGV.value, index=13, source="photos/13.jpg")
    with pytest.raises(WorkerDiedError) as caught:
        account.check()
    assert caught.value.message == (
        "DataLoader worker (pid(s) 4711) exited unexpectedly: worker 1 (pid 4711) was killed by "
        f"SIGSEGV at sample 13 (photos/13.jpg), the {nth} to die in this epoch ({most + 1} by "
        f"SIGSEGV), and max_restarts={most} allows {allowed}. Most likely native code crashed; "
        "update the library that was called there. Mend that, or raise max_restarts"
    )


def test_one_too_many_of_no_known_cause_has_a_remedy_too():
    account = restarts(most=0)
    die(account, fault=NONSENSE)
    with pytest.raises(WorkerDiedError) as caught:
        account.check()
    assert caught.value.message.endswith(
        f"{NONSENSE}, and max_restarts=0 allows no replacement. Raise max_restarts"
    )


def test_the_error_carries_the_last_certificate_and_all_before_it():
    account = restarts(most=2)
    deaths = [
        die(account, 0),
        die(account, 1, exit_code=3),
        die(account, 0, batch=7, indices="samples [9]", stderr="malloc(): corrupted"),
    ]
    with pytest.raises(WorkerDiedError) as caught:
        account.check()
    error = caught.value
    assert error.certificate is deaths[-1]
    assert error.history == tuple(deaths)
    assert (
        "while it made samples [9], the 3rd to die in this epoch (2 by SIGKILL, 1 by exit code 3)"
        in error.message
    )
    assert "malloc(): corrupted" in str(error)


def test_those_that_penstock_ended_are_counted_by_what_for_and_not_by_its_signal():
    account = restarts(most=4)
    ended = -signal.SIGTERM.value
    for _ in range(2):
        die(account, exit_code=ended, fault=LATE, limit_s=2.0)
        die(account, exit_code=ended, fault=NONSENSE)
    die(account, exit_code=ended)
    with pytest.raises(WorkerDiedError) as caught:
        account.check()
    assert "(2 by sample_timeout, 2 for what they sent, 1 by SIGTERM)" in caught.value.message


def test_progress_does_not_make_deaths_undone():
    account = restarts(most=1)
    for _ in range(2):
        die(account)
        account.note_progress()
    with pytest.raises(WorkerDiedError):
        account.check()


# Workers that do not come up.


def test_workers_that_die_before_they_have_their_dataset_end_the_epoch():
    account = restarts(ready=())
    for _ in range(MAX_FAILED_STARTS + SEATS - 1):
        fail_to_start(account)
        account.check()
    fail_to_start(account, descriptors=5, stderr="no licence")
    with pytest.raises(WorkerStartError, match="5th in a row") as caught:
        account.check()
    told, *page = str(caught.value).splitlines()
    assert "SIGKILL while it started (dataset, worker_init_fn), the 5th in a row. Most" in told
    assert page == ["  descriptors  5", "  last stderr", "    no licence"]


def test_one_that_comes_up_begins_the_count_anew():
    account = restarts(ready=())
    for _ in range(MAX_FAILED_STARTS + SEATS - 1):
        fail_to_start(account, 0)
    account.note_start(1)
    fail_to_start(account, 0)
    account.check()


def test_a_worker_that_had_its_dataset_has_not_failed_to_start_and_the_next_in_its_place_has():
    account = restarts(ready=[0])
    for _ in range(MAX_FAILED_STARTS + SEATS):
        fail_to_start(account, 0)
        account.check()
    fail_to_start(account, 0)
    with pytest.raises(WorkerStartError):
        account.check()


# How soon.


def vacate_after(account: Restarts, deaths: int) -> float:
    for _ in range(deaths):
        die(account)
    return account.vacate(0)


def test_the_first_deaths_are_answered_at_once():
    account = restarts()
    for _ in range(SEATS + PROMPT_RESTARTS):
        assert vacate_after(account, 1) == 0.0
        assert account.due() == [0]


def test_after_more_in_a_row_the_time_doubles_up_to_a_bound():
    account = restarts()
    vacate_after(account, SEATS + PROMPT_RESTARTS)
    delays = [vacate_after(account, 1) for _ in range(12)]
    expected = [min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**number) for number in range(12)]
    assert delays == pytest.approx(expected)
    assert delays[-1] == LONGEST_DELAY_S


def test_a_crash_loop_without_end_overflows_nothing():
    assert vacate_after(restarts(most=10**6), 5000) == LONGEST_DELAY_S


def test_progress_makes_the_next_death_answered_at_once():
    account = restarts()
    assert vacate_after(account, SEATS + PROMPT_RESTARTS + 3) > 0
    account.note_progress()
    assert vacate_after(account, 1) == 0.0


def test_a_worker_that_only_starts_is_no_progress():
    account = restarts()
    assert vacate_after(account, SEATS + PROMPT_RESTARTS + 1) > 0
    account.note_start(0)
    assert vacate_after(account, 1) > 0


def test_a_seat_is_due_once_and_not_before_its_time():
    account = restarts()
    delay_s = vacate_after(account, SEATS + PROMPT_RESTARTS + 1)
    vacated = time.monotonic()
    account.note_progress()
    account.vacate(1)
    assert account.due() == [1]
    assert account.due() == []
    while not (due := account.due()):
        assert time.monotonic() - vacated < 10
        time.sleep(account.bound(None) or 0.0)
    assert due == [0]
    assert time.monotonic() - vacated >= delay_s * 0.9
    assert account.due() == []


def test_a_wait_for_something_else_ends_when_a_seat_is_due():
    account = restarts()
    delay_s = vacate_after(account, SEATS + PROMPT_RESTARTS + 8)
    assert 1 < delay_s * 0.9 < (account.bound(None) or 0) <= delay_s
    assert (account.bound(100.0) or 0) <= delay_s
    assert account.bound(0.5) == 0.5
    assert account.bound(0.0) == 0.0


def test_a_seat_that_is_overdue_is_not_waited_for():
    account = restarts()
    vacate_after(account, 1)
    assert account.bound(None) == 0.0


def test_where_no_seat_is_vacant_a_wait_is_as_long_as_asked_for():
    assert restarts().bound(None) is None
    assert restarts().bound(3.0) == 3.0


# What is said of samples and batches.


def test_a_sample_that_ends_its_worker_is_named_with_how_the_last_one_died():
    account = restarts()
    death = die(account, 1, exit_code=-signal.SIGSEGV.value, index=11, source="picture 11")
    failure = account.killed(11)
    error = revive(failure)
    assert type(error) is SampleKilledWorker
    assert error.certificate == death
    assert (failure.index, failure.source, failure.seat) == (11, "picture 11", 1)
    assert "was killed by SIGSEGV while it made sample 11 (picture 11)" in error.message
    assert "native code crashed" in error.message
    assert failure.traceback == ""


def test_a_sample_that_took_too_long_is_an_error_of_its_own():
    account = restarts()
    die(account, 0, fault=LATE, limit_s=2.0, index=10, source="picture 10")
    error = revive(account.killed(10))
    assert type(error) is SampleTimeout
    assert error.message == (
        "sample 10 (picture 10) took longer than sample_timeout=2 s, and worker 0 (pid 4711) was "
        "ended; raise sample_timeout if it can take so long"
    )


@pytest.mark.parametrize("known", [{}, {"limit_s": 2.0}])
def test_the_log_is_told_once_that_a_sample_is_set_aside(known, caplog):
    account = restarts()
    die(account, 1, index=11, source="picture 11", **known)
    assert caplog.messages == []
    account.killed(11)
    assert caplog.messages == [
        "sample 11 (picture 11) is set aside: worker 1 (pid 4711) was killed by SIGKILL"
    ]


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [
        (KILLED, "it takes more memory than there is, or something ends processes that make it"),
        (-signal.SIGALRM.value, "it brings SIGALRM on: a timer, a limit of the system, or a"),
    ],
)
def test_two_kills_at_one_sample_alone_are_no_accident(exit_code, cause):
    account = restarts()
    die(account, 1, exit_code=exit_code, index=11, source="picture 11")
    message = revive(account.killed(11)).message
    assert "while it made sample 11 (picture 11) on its own, like another before it. Mo" in message
    assert f" Most likely making {cause}" in message
    assert "somebody" not in message


def test_a_kill_at_one_sample_alone_that_the_kernel_counts_is_of_memory():
    account = restarts()
    die(account, 1, index=11, source="picture 11", out_of_memory_kills=1)
    assert "for want of memory it was ended" in revive(account.killed(11)).message


@pytest.mark.parametrize("exit_code", [KILLED, -signal.SIGSEGV.value])
@pytest.mark.parametrize("tolerant", [False, True])
def test_that_such_samples_can_be_left_out_is_told_whoever_has_not_said_so(exit_code, tolerant):
    account = restarts(tolerant=tolerant)
    die(account, 1, exit_code=exit_code, index=11, source="picture 11")
    message = revive(account.killed(11)).message
    assert message.endswith(". on_error='skip' leaves such samples out.") is not tolerant
    assert ("on_error" in message) is not tolerant


def test_a_sample_that_has_a_worker_send_nonsense_took_no_longer_than_it_may():
    account = restarts()
    die(account, 0, fault=NONSENSE, index=10, source="picture 10")
    error = revive(account.killed(10))
    assert type(error) is SampleKilledWorker
    assert error.message.endswith(
        f"{NONSENSE} while it made sample 10 (picture 10) on its own, like another before it."
    )


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({}, WorkerDiedError),
        ({"fault": NONSENSE}, WorkerDiedError),
        ({"fault": LATE, "limit_s": 2.0}, SampleTimeout),
    ],
)
def test_a_batch_that_is_given_up_carries_the_last_certificate(known, kind):
    account = restarts()
    death = die(account, **known)
    error = account.given_up(Lease(7, 7, 0, [1, 2]))
    assert type(error) is kind
    assert error.certificate is death
    assert "to die at batch 7 with samples [1, 2]" in error.message


def test_a_stream_that_cannot_go_on_is_named_with_the_place():
    account = restarts(is_stream=True)
    die(account)
    message = account.given_up(Lease(5, 0, 0, (1, 2))).message
    assert "was killed by SIGKILL, not the first to do so at batch 2 of the stream of w" in message
    assert (
        "cannot give; the dataset itself can skip it. Most likely making it takes more" in message
    )


def test_a_stream_that_hangs_is_named_with_the_place_and_a_remedy():
    account = restarts(is_stream=True)
    die(account, 1, fault=LATE, limit_s=2.0)
    error = account.given_up(Lease(5, 0, 0, (1, 2)))
    assert type(error) is SampleTimeout
    assert error.message == (
        "a sample took longer than sample_timeout=2 s, and worker 1 (pid 4711) was ended, not the "
        "first time at batch 2 of the stream of worker 1. A stream cannot go on behind a sample "
        "that it cannot give: raise sample_timeout if it can take so long, or have the dataset "
        "itself skip it"
    )
