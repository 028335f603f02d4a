"""Coroutines that are stepped through by hand."""

from __future__ import annotations

import asyncio

from dflow.attempts.stepping import async_generated, generated, hand_out


async def two_items() -> None:
    """Hand out two items."""
    await hand_out(1)
    await hand_out(2)


def test_an_iterator_closes_after_what_it_iterates_over() -> None:
    """The garbage collector may take the coroutine first: then there is nothing to say."""
    steps = two_items()
    items = generated(steps)
    assert next(items) == 1
    steps.close()
    items.close()


def test_an_async_iterator_closes_after_what_it_iterates_over() -> None:
    """As above, on an event loop."""

    async def main() -> None:
        steps = two_items()
        items = async_generated(steps)
        assert await anext(items) == 1
        steps.close()
        await items.aclose()

    asyncio.run(main())
