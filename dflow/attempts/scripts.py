"""What multiprocessing does with the script of this process."""

from __future__ import annotations

from multiprocessing import process


def being_imported_by_a_worker() -> bool:
    """Tell whether this process is a worker that is only just loading the script of its driver.

    A flow that is started now would start workers of its own, and so on: the script lacks a main guard.
    """
    return bool(getattr(process.current_process(), "_inheriting", False))
