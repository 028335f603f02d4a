"""The diagrams in ARCHITECTURE.md, which are drawn from the tables: ``python -m tests.diagrams --write``.

A diagram stands between ``<!-- task run diagram -->`` (or ``flow run``) and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dflow.core.diagram import flow_mermaid, mermaid

PAGE = Path(__file__).parents[1] / "ARCHITECTURE.md"

DIAGRAMS: Mapping[str, Callable[[], str]] = {
    "task run diagram": mermaid,
    "flow run diagram": flow_mermaid,
}


def drawn(page: str) -> str:
    """Return the text of a page with every diagram drawn afresh; ValueError if one has no place."""
    for name, draw in DIAGRAMS.items():
        places = re.findall(rf"<!-- {name} -->\n.*?<!-- end -->", page, re.DOTALL)
        if len(places) != 1:
            raise ValueError(
                f"The page has {len(places)} places '<!-- {name} -->' … '<!-- end -->'."
            )
        diagram = f"<!-- {name} -->\n```mermaid\n{draw().rstrip()}\n```\n<!-- end -->"
        page = page.replace(places[0], diagram)
    return page


def main() -> int:
    """Compare the page with the tables, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page instead of comparing")
    options = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = drawn(before)
    if options.write and after != before:
        PAGE.write_text(after, encoding="utf-8")
    return 0 if options.write or after == before else 1


if __name__ == "__main__":
    sys.exit(main())
