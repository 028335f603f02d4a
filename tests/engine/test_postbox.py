"""What is posted to the tracker is taken in the order in which it came; not all of it wakes anybody."""

from __future__ import annotations

import threading
from queue import Empty

import pytest

from dflow import flow, runs, task
from dflow.core import events as ev
from dflow.engine.postbox import Postbox
from dflow.engine.posts import Do, Post
from task_runners import ThreadPoolTaskRunner

STARTED = ev.AttemptStarted(at=1.0, task_run_id="a", dispatch=1)


def outcome(dispatch: int) -> Post:
    """Return the end of an attempt."""
    return ev.AttemptSucceeded(
        at=2.0, task_run_id="a", dispatch=dispatch, started_at=1.0, seconds=1.0
    )


def nothing() -> Post:
    """Return a post."""
    return Do(lambda ledger: None)


def test_whatever_is_soon_stands_in_line() -> None:
    """What need not wake the tracker does not go before what was posted earlier, nor after what is later."""
    box, posts = Postbox(), [nothing() for _ in range(6)]
    for number, post in enumerate(posts):
        (box.put_soon if number % 2 else box.put)(post)
    box.put(None)
    assert [box.get(1.0) for _ in range(7)] == [*posts, None]
    with pytest.raises(Empty):
        box.get(0)


def test_a_start_whose_end_has_come_is_none() -> None:
    """The end tells when it began; that of another dispatch does not, and a start that wakes stays one."""
    box = Postbox()
    for last, left in ((outcome(1), 1), (outcome(2), 2)):
        box.put_soon(STARTED)
        box.put(last)
        assert box.emptied() == [STARTED, last]
        box.put_soon(STARTED)
        box.put(last)
        assert [box.get(1.0) for _ in range(left)] == [STARTED, last][-left:]
    box.put(STARTED)
    box.put(outcome(1))
    assert [box.get(1.0), box.get(1.0)] == [STARTED, outcome(1)]


def test_nothing_is_left_lying() -> None:
    """Many threads post at once, with and without waking: all is taken, that of each thread in its order."""
    box, each, threads = Postbox(), 2000, 4
    posts = [[nothing() for _ in range(each)] for _ in range(threads)]

    def post(number: int) -> None:
        for place, one in enumerate(posts[number]):
            (box.put_soon if place % 3 else box.put)(one)

    posting = [threading.Thread(target=post, args=(number,)) for number in range(threads)]
    for thread in posting:
        thread.start()
    taken = [box.get(10.0) for _ in range(each * threads)]
    for thread in posting:
        thread.join()
    for mine in posts:
        wanted = set(map(id, mine))
        assert [one for one in taken if id(one) in wanted] == mine


def test_somebody_who_sleeps_is_woken() -> None:
    """By a post that wakes at once, and by one that can wait when nobody looks any more."""
    for how in ("put", "put_soon"):
        box, found = Postbox(), list[Post | None]()
        sleeper = threading.Thread(target=lambda box=box, found=found: found.append(box.get(30.0)))
        sleeper.start()
        post = nothing()
        getattr(box, how)(post)
        sleeper.join(10.0)
        assert found == [post]


@task
def quick(x: int) -> int:
    """Do next to nothing."""
    return x


@task
def parent(x: int) -> int:
    """Call another one."""
    return quick(x)


def test_the_history_has_the_order_of_the_body() -> None:
    """A direct call after a submit is recorded after it, and after the start of the body that makes it."""

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def both() -> None:
        futures = []
        for number in range(50):
            futures.append(parent.submit(number))
            quick(number)
        for future in futures:
            future.result()

    both()
    with runs.opened(runs.find("latest")) as reader:
        events = [event for _, event in reader.events()]
    made = [e for e in events if isinstance(e, ev.TaskCreated)]
    body = [e.task_name for e in made if e.parent_id == e.flow_run_id]
    assert body == ["parent", "quick"] * 50
    begun: set[str] = set()
    for event in events:
        if isinstance(event, ev.AttemptStarted | ev.AttemptSucceeded):
            begun.add(event.task_run_id)
        elif isinstance(event, ev.TaskCreated) and event.parent_id != event.flow_run_id:
            assert event.parent_id in begun
