"""Promises of the threads that answer: together, no more than there may be, none is lost."""

import threading

import pytest

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


def test_without_a_thread_nobody_waits_for_the_job(monkeypatch):
    """A host that gives no thread must not keep a mount from ending."""
    workers = Workers(2, "test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            workers.submit(pytest.fail)
    assert workers.join(0)
    done = threading.Event()
    workers.submit(done.set)
    assert done.wait(20)
    assert workers.join(20)


def test_a_job_waits_for_a_thread_that_there_is(monkeypatch):
    workers = Workers(2, "test")
    let_go, done = threading.Event(), threading.Event()
    workers.submit(let_go.wait)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    workers.submit(done.set)
    assert not done.is_set()
    let_go.set()
    assert done.wait(20)
    assert workers.join(20)


def no_thread(thread):
    raise RuntimeError("can't start new thread")
