"""What the tracker may take with the post that comes next: quick calls need not wake it twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from dflow.core import events as ev
from dflow.engine.posts import Post

SOON, LOOKS = 0.005, 200
"""Every how many seconds the tracker looks for such posts, and how often it does so in vain."""


class Soon:
    """Posts that wait for the next one. `wake` wakes the tracker, if it would not look by itself."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._posts: deque[Post] = deque()
        self._looks_left = 0

    def put(self, post: Post) -> None:
        """Add a post, from any thread."""
        self._posts.append(post)
        if not self._looks_left:
            self._wake()

    def patience(self, seconds: float) -> float:
        """Return how many of these seconds the tracker may sleep; it looks when they are over."""
        if self._looks_left:
            self._looks_left -= 1
            seconds = min(seconds, SOON)
        return 0.0 if self._posts else seconds

    def taken(self, following: Post | None) -> Iterator[Post]:
        """Take the posts before the one that follows; the start of an attempt is none if its end follows."""
        while self._posts:
            self._looks_left = LOOKS
            post = self._posts.popleft()
            if not _has_ended(post, following):
                yield post


def _has_ended(post: Post, following: Post | None) -> bool:
    """Tell whether a post is the start of an attempt of which the following one is the end."""
    return (
        isinstance(post, ev.AttemptStarted)
        and isinstance(following, ev.Outcome)
        and post.task_run_id == following.task_run_id
        and post.dispatch == following.dispatch
    )
