"""Fixtures for all tests: every start method, and nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.leaks import take_census, wait_no_leaks

# How long a closed loader may take to let go of everything. A worker that is told to stop is
# gone within milliseconds; the rest is for a machine under load.
_LEAK_TIMEOUT_S = 10.0

# How long one example takes says more about the machine than about the subject: pytest-timeout
# bounds the whole test. The rest stays as Hypothesis chose it, which knows whether this is CI.
settings.register_profile("penstock", settings(), deadline=None)
settings.load_profile("penstock")


def pytest_configure() -> None:
    """Lets Ctrl-C through to the programs that tests start and interrupt.

    What a shell runs in the background ignores it, and so does everything started from there.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Takes torch and all the tests, which stay, out of the garbage collector's sight.

    Each look for leaks collects first, and would go through all of them.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def start_method(request: pytest.FixtureRequest) -> str:
    """Every way this platform starts a process: on Linux fork, spawn and forkserver.

    A test of anything that runs in a worker takes this fixture and passes the name on, as
    `multiprocessing_context=start_method`.
    """
    method: str = request.param
    return method


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails the test if it leaves a process, thread, descriptor or name in `/dev/shm` behind.

    A test of a fault takes it, as `@pytest.mark.usefixtures("no_leaks")` or as an argument. Name it
    before fixtures that hold resources: fixtures are torn down in reverse, so it looks last.
    """
    before = take_census()
    yield
    leaks = wait_no_leaks(before, _LEAK_TIMEOUT_S)
    if leaks:
        pytest.fail("left behind by this test:\n  " + "\n  ".join(leaks), pytrace=False)
