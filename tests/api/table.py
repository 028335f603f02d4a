"""What dflow says of its flows and tasks, statement by statement, and the test that shows each.

It reads like the description of the API that users get. Each test runs over the runners for which the
statement makes sense; ``test_table.py`` sees to it that all of them are there.
"""

from __future__ import annotations

Rows = tuple[tuple[str, str], ...]
"""(a statement, the test that shows it: ``file::function``)."""

TABLE: dict[str, Rows] = {}
"""The sections of the description, each with its statements."""
