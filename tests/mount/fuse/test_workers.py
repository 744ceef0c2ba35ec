"""Promises of the threads that answer: together, no more than there may be, none is lost."""

import threading

from mregfs.fuse.workers import Workers


def test_jobs_run_together_up_to_the_limit():
    workers = Workers(3, "test")
    meeting = threading.Barrier(3, timeout=20)
    running, most, lock = 0, 0, threading.Lock()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait()
        with lock:
            running -= 1

    for _ in range(9):
        workers.submit(job)

    assert workers.join(20)
    assert 3 == most


def test_who_waits_hears_of_the_end_or_of_the_time():
    workers = Workers(1, "test")
    assert workers.join(0)
    let_go = threading.Event()
    workers.submit(let_go.wait)
    assert not workers.join(0.01)
    let_go.set()
    assert workers.join()
