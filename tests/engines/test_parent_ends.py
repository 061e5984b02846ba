from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import pytest

from penstock.engines import parent_ends
from penstock.engines.lifeline import Lifeline
from penstock.engines.parent_ends import forks_held, keep_from_children

pytestmark = pytest.mark.usefixtures("no_leaks")


class Forking(threading.Thread):
    """Forks a process, which leaves with 0 if `what` returns something true there."""

    code: int | None = None

    def __init__(self, what):
        super().__init__()
        self._what = what

    def run(self):
        pid = os.fork()
        if not pid:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)
                os._exit(0 if self._what() else 1)
            finally:
                os._exit(2)
        self.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_has_none_of_the_parents_ends_whenever_another_thread_forks_it():
    with forks_held():
        lifeline = Lifeline(multiprocessing.get_context())
        forking = Forking(lambda: lifeline._writer.closed)
        forking.start()
        forking.join(0.2)
        keep_from_children(lifeline)
    forking.join()
    assert forking.code == 0
    lifeline.let_go()
    lifeline.reader.close()


def test_a_fork_does_not_wait_for_ever_and_its_child_can_open_ends(monkeypatch):
    monkeypatch.setattr(parent_ends, "_FORK_S", 0.05)

    def can_open():
        with forks_held():
            return True

    with forks_held():
        forking = Forking(can_open)
        forking.start()
        forking.join(30)
        assert forking.code == 0
    # Nobody has kept it.
    forking = Forking(can_open)
    forking.start()
    with forks_held():
        pass
    forking.join(30)
    assert forking.code == 0


def test_a_thread_may_fork_while_it_opens_ends_itself():
    with forks_held():
        forking = Forking(lambda: True)
        forking.run()
    assert forking.code == 0


def test_an_end_that_the_program_has_closed_keeps_no_other_open():
    lifelines = [Lifeline(multiprocessing.get_context()) for _ in range(6)]
    for lifeline in lifelines:
        keep_from_children(lifeline)
    broken, sound = lifelines[::2], lifelines[1::2]

    def all_closed():
        return all(lifeline._writer.closed for lifeline in sound)

    for lifeline in broken:
        os.close(lifeline._writer.fileno())
    forking = Forking(all_closed)
    forking.run()
    for lifeline in broken:
        lifeline._writer._handle = None
    for lifeline in lifelines:
        lifeline.let_go()
        lifeline.reader.close()
    assert forking.code == 0
