"""The table of statements is true: every test that it names is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.api.table import TABLE

HERE = Path(__file__).parent
STATEMENTS = [
    pytest.param(statement, test, id=f"{section}: {statement[:60]}")
    for section, rows in TABLE.items()
    for statement, test in rows
]


@pytest.mark.parametrize(("statement", "test"), STATEMENTS)
def test_a_statement_is_shown_by_a_test(statement: str, test: str) -> None:
    """The file has a test of this name, and the statement is a sentence."""
    file, _, function = test.partition("::")
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in names
    assert statement.endswith(".")


def test_no_statement_is_made_twice() -> None:
    """Each stands once."""
    statements = [statement for rows in TABLE.values() for statement, _ in rows]
    assert len(statements) == len(set(statements))
