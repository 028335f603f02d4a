"""Words that say, in a call, how an argument is meant. They are gone before the task's body sees it."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Annotation(Generic[T]):
    """An argument, and that it is meant in a special way."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):  # noqa: N801  (reads as a word in a call)
    """Marks an argument of ``map`` that is the same for every item; elsewhere it changes nothing.

    It travels once, not once for every item.

    >>> unmapped([1, 2]).value
    [1, 2]
    """

    __slots__ = ()


class allow_failure(Annotation[T]):  # noqa: N801  (reads as a word in a call)
    """Lets a task run even if what it depends on fails: it gets the exception in the place of the value.

    Takes a future, a state, or anything that holds some; in ``map`` each item of a list. In whatever way a
    task run has ended (it raised, crashed, timed out, was cancelled, never ran because of a failure), the
    exception is what ``result()`` would raise; for a value that was lost it is `dflow.errors.MissingResult`.
    In ``wait_for=[…]`` it lets the task wait for the end of something, however that ends.

    >>> allow_failure([1, 2])
    allow_failure([1, 2])
    """

    __slots__ = ()


class quote(Annotation[T]):  # noqa: N801  (reads as a word in a call)
    """Hides a value from the search for futures: the task receives the value itself.

    For what is large and holds no futures, or contains itself. In ``map`` it is the same for every item.

    >>> quote({"a": [1, 2]}).value
    {'a': [1, 2]}
    """

    __slots__ = ()


class opaque(Annotation[T]):  # noqa: N801  (reads as a word in a call)
    """Stands for a future's or a state's value, and hides anything else from the search, as `quote` does.

    In ``map`` it is the same for every item.

    >>> opaque(5).value
    5
    """

    __slots__ = ()
