"""The box that the tracker takes its posts from, in the order in which they came; not each one wakes it."""

from __future__ import annotations

import contextlib
from collections import deque
from queue import Empty, SimpleQueue

from dflow.core import events as ev
from dflow.engine.posts import Post

SOON, LOOKS = 0.005, 200
"""Every how many seconds the tracker looks for what can wait for the next post, and how often in vain."""


class Postbox:
    """Posts of any thread, for one thread to take. None among them says that there will be no more."""

    def __init__(self) -> None:
        self._posts: deque[tuple[Post | None, bool]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self._looks_left = 0

    def put(self, post: Post | None) -> None:
        """Add a post."""
        self._posts.append((post, False))
        if self._asleep:
            self._bell.put(None)

    def put_soon(self, post: Post) -> None:
        """Add a post that is taken with the next one, or a moment later: quick calls need not wake twice.

        The start of an attempt is none when the end is the last post of all: that tells of both.
        """
        self._posts.append((post, True))
        if self._asleep and not self._looks_left:
            self._bell.put(None)
        self._looks_left = LOOKS

    def get(self, seconds: float) -> Post | None:
        """Take the oldest post, waiting for one. Raises `Empty` when there is none after so many seconds."""
        if not self._posts and seconds > 0:
            self._sleep(seconds)
        while self._posts:
            post, soon = self._posts.popleft()
            if not (soon and self._posts and _has_ended(post, self._posts[-1][0])):
                return post
        raise Empty

    def _sleep(self, seconds: float) -> None:
        """Wait for a post; it may end without one, early."""
        if self._looks_left:
            self._looks_left -= 1
            seconds = min(seconds, SOON)
        self._asleep = True
        try:
            if not self._posts:  # one that came just before has not rung
                with contextlib.suppress(Empty):
                    self._bell.get(timeout=seconds)
        finally:
            self._asleep = False

    def emptied(self) -> list[Post | None]:
        """Take all that is there."""
        posts: list[Post | None] = []
        with contextlib.suppress(IndexError):
            while True:
                posts.append(self._posts.popleft()[0])
        return posts


def _has_ended(post: Post | None, later: Post | None) -> bool:
    """Tell whether a post is the start of an attempt of which a later one is the end."""
    return (
        isinstance(post, ev.AttemptStarted)
        and isinstance(later, ev.Outcome)
        and post.task_run_id == later.task_run_id
        and post.dispatch == later.dispatch
    )
