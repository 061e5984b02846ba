"""What is said of a dead worker: how it ended, what of, and what to do about it."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from penstock.certificate import DeathCertificate, Level, in_units

GIB = 1 << 30
STACK = """Thread 0x00007f (most recent call first):
  File "/data/pictures.py", line 7 in decode
  File "/data/pictures.py", line 3 in __getitem__"""


def died(exit_code: int | None, **known) -> DeathCertificate:
    return DeathCertificate(2, 4711, exit_code, **known)


def killed_by(name: str, **known) -> DeathCertificate:
    return died(-signal.Signals[name].value, **known)


# How it ended.


@pytest.mark.parametrize(
    ("exit_code", "name"),
    [
        (-signal.SIGKILL, "SIGKILL"),
        (-signal.SIGSEGV, "SIGSEGV"),
        (-signal.SIGRTMIN, "SIGRTMIN"),
        (-(signal.SIGRTMIN + 3), f"signal {signal.SIGRTMIN + 3}"),
        (0, ""),
        (9, ""),
        (None, ""),
    ],
)
def test_a_signal_is_named_and_an_exit_code_is_none(exit_code, name):
    assert died(exit_code).signal_name == name


@pytest.mark.parametrize(
    ("certificate", "what"),
    [
        (killed_by("SIGKILL"), "worker 2 (pid 4711) was killed by SIGKILL"),
        (died(0), "worker 2 (pid 4711) ended with exit code 0"),
        (died(None), "worker 2 (pid 4711) ended"),
        (killed_by("SIGKILL", fault="sent nonsense"), "worker 2 (pid 4711) sent nonsense"),
    ],
)
def test_it_begins_with_who_ended_and_how(certificate, what):
    assert certificate.what == what


@pytest.mark.parametrize(
    ("known", "where"),
    [
        ({"batch": 3, "index": 7, "source": "a.jpg"}, "at sample 7 (a.jpg)"),
        ({"batch": 3, "index": None, "source": "key None of D"}, "at sample None (key None of D)"),
        ({"batch": 0, "indices": "samples [0, 1]"}, "while it made samples [0, 1]"),
        (
            {"batch": 3, "indices": "batch 1 of the stream of worker 1"},
            "while it made batch 1 of the stream of worker 1",
        ),
        ({"batch": 0}, "while it made batch 0"),
        ({}, ""),
    ],
)
def test_it_says_what_the_worker_was_at_as_far_as_that_is_known(known, where):
    certificate = died(1, **known)
    assert certificate.where == where
    assert str(certificate).startswith(f"{certificate.what} {where}".strip() + ":")


# What it died of.


@pytest.mark.parametrize(("kills", "of_memory"), [(0, False), (1, True), (3, True)])
def test_a_kill_is_of_memory_if_the_kernel_has_counted_one(kills, of_memory):
    assert killed_by("SIGKILL", out_of_memory_kills=kills).of_memory is of_memory


def test_what_the_kernel_has_counted_says_nothing_of_a_crash_meanwhile():
    assert not killed_by("SIGSEGV", out_of_memory_kills=1).of_memory


@pytest.mark.parametrize(
    "stderr",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "MemoryError: Unable to allocate 8.0 GiB",
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "OSError: [Errno 12] Cannot allocate memory",
        "fatal: out of memory",
    ],
)
@pytest.mark.parametrize("exit_code", [-signal.SIGABRT, 1])
def test_who_gives_up_saying_that_memory_is_short_died_of_memory(exit_code, stderr):
    assert died(exit_code, stderr=f"loading\n{stderr}\n").of_memory


def test_a_stack_may_say_so_as_well():
    stack = "Fatal Python error: _PyMem_Malloc: out of memory"
    assert killed_by("SIGABRT", stack=stack).of_memory


def test_whoever_leaves_without_an_error_did_not_die_of_memory():
    assert not died(0, stderr="warning: out of memory, trying again").of_memory


@pytest.mark.parametrize("stderr", ["", "loading\nmemory map opened\n"])
def test_an_end_without_such_words_is_not_of_memory(stderr):
    assert not killed_by("SIGABRT", stderr=stderr).of_memory


def test_whom_penstock_ended_itself_did_not_die_of_memory():
    known = {"out_of_memory_kills": 1, "stderr": "bad_alloc"}
    assert not killed_by("SIGKILL", fault="was ended", **known).of_memory
    assert not died(None, **known).of_memory


@pytest.mark.parametrize(
    ("certificate", "by_itself"),
    [
        (killed_by("SIGSEGV"), True),
        (killed_by("SIGBUS"), True),
        (killed_by("SIGABRT"), True),
        (died(0), True),
        (died(3), True),
        (died(None), True),
        (killed_by("SIGKILL"), False),
        (killed_by("SIGTERM"), False),
        (killed_by("SIGHUP"), False),
        (killed_by("SIGKILL", fault="sent nonsense"), True),
    ],
)
def test_only_a_signal_that_is_sent_from_outside_can_be_somebody_elses_doing(
    certificate, by_itself
):
    assert certificate.by_itself is by_itself


# The likely cause, and the remedy.

CAUSES = {
    "the kernel's killer": (
        killed_by("SIGKILL", out_of_memory_kills=1),
        ["for want of memory", "kernel's out-of-memory killer", "use fewer workers"],
    ),
    "no memory to be had": (
        killed_by("SIGABRT", stderr="std::bad_alloc"),
        ["for want of memory it was ended itself", "or lower a DataLoader's prefetch_factor"],
    ),
    "SIGSEGV": (killed_by("SIGSEGV"), ["native code crashed;", "update"]),
    "SIGFPE": (killed_by("SIGFPE"), ["native code crashed;", "update"]),
    "SIGILL": (killed_by("SIGILL"), ["native code crashed;", "update"]),
    "SIGBUS": (killed_by("SIGBUS"), ["cut short", "or shared memory or a disk is full"]),
    "SIGABRT": (killed_by("SIGABRT"), ["gave up;", "see what it wrote to stderr"]),
    "SIGKILL": (
        killed_by("SIGKILL"),
        ["kill -9", "job scheduler", "if memory is short, use fewer"],
    ),
    "SIGTERM": (killed_by("SIGTERM"), ["somebody sent it SIGTERM"]),
    "an exit code": (died(3), ["sys.exit, os._exit(3) or C's", "raise an exception instead"]),
    "a clean exit": (died(0), ["sys.exit, os._exit(0) or C's", "raise an exception instead"]),
}


@pytest.mark.parametrize(("certificate", "said"), CAUSES.values(), ids=CAUSES)
def test_each_kind_of_end_has_its_likely_cause_and_a_remedy(certificate, said):
    for words in said:
        assert words in certificate.likely_cause
    assert "\n" not in certificate.likely_cause
    # Streams, and workers that start, have no sample that could be left out.
    assert "on_error" not in certificate.likely_cause
    assert str(certificate).startswith(
        f"{certificate.what}: most likely {certificate.likely_cause}"
    )


def test_no_two_kinds_of_end_have_the_same_cause():
    crashes = {"SIGSEGV", "SIGFPE", "SIGILL"}
    causes = [certificate.likely_cause for name, (certificate, _) in CAUSES.items()]
    assert len(set(causes)) == len(causes) - len(crashes) + 1


@pytest.mark.parametrize("certificate", [killed_by("SIGKILL", fault="was ended"), died(None)])
def test_nothing_is_guessed_where_the_reason_is_known_or_nothing_is(certificate):
    assert certificate.likely_cause == ""
    assert str(certificate) == certificate.what


def test_how_full_the_memory_was_is_a_part_of_the_cause():
    certificate = killed_by("SIGKILL", out_of_memory_kills=1, memory=Level(int(7.9 * GIB), 8 * GIB))
    assert "killer: 7.9 GiB of 8.0 GiB used; use fewer workers" in certificate.likely_cause


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGABRT"])
def test_a_crash_names_the_line_of_python_that_it_was_called_from(name):
    called = ', called from "/data/pictures.py", line 7 in decode'
    assert called in killed_by(name, stack=STACK).likely_cause
    assert "called from" not in killed_by(name).likely_cause


# The page of text.


def test_all_that_is_known_is_on_the_page():
    certificate = killed_by(
        "SIGSEGV",
        batch=5,
        indices="samples [10, 11]",
        index=11,
        source="b.jpg",
        ran_s=1.23456,
        rss_bytes=300 << 20,
        peak_rss_bytes=2 * GIB,
        memory=Level(GIB, 8 * GIB),
        shared_memory=Level(0, 64 << 20),
        descriptors=17,
        out_of_memory_kills=2,
        stack=STACK,
        stderr="one\ntwo",
    )
    head, *details = str(certificate).splitlines()
    assert head.startswith("worker 2 (pid 4711) was killed by SIGSEGV at sample 11 (b.jpg): most ")
    assert details == certificate.details
    assert details == [
        "  batch        5: samples [10, 11]",
        "  at it for    1.235 s",
        "  its memory   300 MiB resident, 2.0 GiB at most",
        "  memory       1.0 GiB of 8.0 GiB used",
        "  killed       2 for want of memory",
        "  /dev/shm     0 KiB of 64 MiB used",
        "  descriptors  17",
        "  last stack",
        *(f"    {line}" for line in STACK.splitlines()),
        "  last stderr",
        "    one",
        "    two",
    ]


def test_what_is_not_known_is_left_out():
    assert died(1).details == []
    assert died(1, peak_rss_bytes=GIB).details == ["  its memory   1.0 GiB at most"]


def test_nothing_counted_is_not_the_same_as_not_known():
    certificate = died(1, batch=0, indices="samples [0]", ran_s=0.0, rss_bytes=0, descriptors=0)
    assert certificate.details == [
        "  batch        0: samples [0]",
        "  at it for    0 s",
        "  its memory   0 KiB resident",
        "  descriptors  0",
    ]


@pytest.mark.parametrize(
    ("ran_s", "told"), [(0.0119, "0.012"), (0.00004, "0"), (2.0, "2"), (123.4567, "123.457")]
)
def test_how_long_it_was_at_it_is_told_to_a_millisecond(ran_s, told):
    assert died(1, ran_s=ran_s).details == [f"  at it for    {told} s"]


def test_its_repr_is_one_line_however_much_is_known():
    known = {"batch": 3, "index": 7, "source": "a.jpg", "stack": STACK, "stderr": "one\ntwo"}
    certificate = killed_by("SIGSEGV", **known)
    told = "worker 2 (pid 4711) was killed by SIGSEGV at sample 7 (a.jpg)"
    assert certificate.headline == told
    assert repr([certificate]) == f"[<DeathCertificate: {told}>]"


@pytest.mark.parametrize(("limit_s", "overdue"), [(None, False), (0.5, True)])
def test_what_had_a_limit_and_was_ended_for_it_is_overdue(limit_s, overdue):
    assert killed_by("SIGKILL", limit_s=limit_s).overdue is overdue


def test_certificates_of_the_same_facts_are_equal():
    certificate = killed_by("SIGKILL", memory=Level(1, 2))
    assert replace(certificate) == certificate
    assert hash(replace(certificate)) == hash(certificate)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 KiB"),
        (1536, "2 KiB"),
        ((1 << 20) - 1024, "1023 KiB"),
        (1 << 20, "1 MiB"),
        ((1 << 30) - (1 << 20), "1023 MiB"),
        (1 << 30, "1.0 GiB"),
        (int(7.94 * (1 << 30)), "7.9 GiB"),
    ],
)
def test_bytes_are_told_in_the_unit_that_suits_them(size, text):
    assert in_units(size) == text
