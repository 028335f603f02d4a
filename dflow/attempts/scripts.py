"""What multiprocessing does with the script of this process."""

from __future__ import annotations

from multiprocessing import process

from dflow.errors import MissingMainGuard


def being_imported_by_a_worker() -> bool:
    """Tell whether this process is a worker that is only just loading the script of its driver.

    A flow that is started now would start workers of its own, and so on: the script lacks a main guard.
    """
    return bool(getattr(process.current_process(), "_inheriting", False))


def check_guard(flow_name: str, function_name: str) -> None:
    """Raise `MissingMainGuard` if a flow is called by a script that a worker is only just loading."""
    if being_imported_by_a_worker():
        raise MissingMainGuard(
            f"Flow '{flow_name}' is called while a worker process loads this script. "
            "Put the call into the main guard, so that only the script itself makes it:\n\n"
            '    if __name__ == "__main__":\n'
            f"        {function_name}()\n"
        )
