"""The line of jobs: order, cancel, urgency, errors."""

import asyncio
import threading
import time

import pytest

from workbench.widgets.worker import Cancelled, Job, Worker


def blocked(worker: Worker) -> tuple[Job, threading.Event]:
    """A job that runs until the event is set, so that others must wait behind it."""
    go, began = threading.Event(), threading.Event()

    def work(job: Job) -> None:
        began.set()
        go.wait(10)

    job = worker.submit(work, "blocked")
    assert began.wait(10)
    return job, go


def test_jobs_run_one_after_the_other_in_the_order_they_came():
    worker, seen = Worker(), []
    jobs = [worker.submit(lambda job, i=i: seen.append(i), str(i)) for i in range(20)]
    for job in jobs:
        job.wait(10)
    assert seen == list(range(20))


def test_two_jobs_never_run_at_once_whoever_submits_them():
    worker, inside, most = Worker(), [], []

    def work(job: Job) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()

    def submit_some() -> None:
        for job in [worker.submit(work, "w") for _ in range(20)]:
            job.wait(10)

    threads = [threading.Thread(target=submit_some) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 100 and set(most) == {1}


def test_urgent_jobs_go_before_those_that_wait():
    worker, seen = Worker(), []
    _, go = blocked(worker)
    slow = worker.submit(lambda job: seen.append("slow"), "slow")
    fast = worker.submit(lambda job: seen.append("urgent"), "urgent", urgent=True)
    go.set()
    slow.wait(10), fast.wait(10)
    assert seen == ["urgent", "slow"]


def test_a_long_job_lets_urgent_ones_in_where_it_breathes():
    worker, seen, began, waiting = Worker(), [], threading.Event(), threading.Event()

    def long(job: Job) -> None:
        seen.append("first half")
        began.set()
        waiting.wait(10)
        job.breathe()
        seen.append("second half")

    job = worker.submit(long, "long")
    assert began.wait(10)
    worker.submit(lambda job: seen.append("urgent"), "urgent", urgent=True)
    worker.submit(lambda job: seen.append("later"), "later").cancel()
    waiting.set()
    job.wait(10)
    assert seen == ["first half", "urgent", "second half"]


def test_a_waiting_job_that_is_cancelled_never_runs():
    worker, seen = Worker(), []
    first, go = blocked(worker)
    second = worker.submit(lambda job: seen.append(1), "second")
    second.cancel()
    assert second.state == "cancelled"
    go.set()
    first.wait(10)
    assert not seen
    with pytest.raises(Cancelled):
        second.result(1)


def test_a_running_job_keeps_what_it_had_done_when_it_was_cancelled():
    worker, began = Worker(), threading.Event()

    def work(job: Job) -> int:
        for done in range(10_000):
            if job.cancelled:
                return done
            job.report(done, 10_000)
            began.set()
            time.sleep(0.001)
        return -1

    job = worker.submit(work, "count")
    assert began.wait(10)
    job.cancel()
    assert 0 <= job.result(10) < 10_000 and job.state == "cancelled"


def test_what_a_job_raises_is_raised_where_it_is_waited_for_and_the_line_goes_on():
    worker = Worker()

    def fail(job: Job) -> None:
        raise ValueError("no such layer")

    failed = worker.submit(fail, "fail").wait(10)
    assert failed.state == "failed" and failed.error == "no such layer"
    with pytest.raises(ValueError, match="no such layer"):
        failed.result()
    assert worker.submit(lambda job: 7, "next").result(10) == 7


def test_a_job_can_wait_for_one_behind_it_in_its_own_line():
    worker = Worker()
    inner: list[Job] = []

    def outer(job: Job) -> int:
        inner.append(worker.submit(lambda job: 21, "inner"))
        return 2 * inner[0].result(10)

    assert worker.submit(outer, "outer").result(10) == 42


def test_a_job_can_be_awaited():
    async def wait() -> int:
        return await Worker().submit(lambda job: 5, "five")

    assert asyncio.run(wait()) == 5


def test_rate_and_time_left_follow_from_what_was_reported():
    worker, middle, go = Worker(), threading.Event(), threading.Event()

    def work(job: Job) -> None:
        time.sleep(0.2)
        job.report(25, 100)
        middle.set()
        go.wait(10)

    job = worker.submit(work, "quarter")
    assert middle.wait(10)
    rate, left = job.rate, job.seconds_left
    go.set()
    assert rate is not None and left is not None and 25 / 10 < rate <= 25 / 0.2
    assert left == pytest.approx(75 / rate, rel=0.5)
    job.wait(10)
    assert job.seconds_left is None


def test_work_without_a_way_to_go_on_says_so():
    job = Worker().submit(lambda job: None, "once").wait(10)
    with pytest.raises(ValueError, match="cannot be gone on with"):
        job.resume()


def test_a_thread_that_nobody_needs_ends_and_another_comes():
    worker = Worker()
    assert worker.submit(lambda job: threading.current_thread(), "who").result(10).daemon
    worker._thread = None  # as after thirty idle seconds
    assert worker.submit(lambda job: 1, "again").result(10) == 1
