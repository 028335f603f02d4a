"""Processes that end with the one that has started them, however that ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

END = 10.0
"""Seconds in which such a process closes what it has opened."""


def end_after(gone: Callable[[], object]) -> None:
    """Interrupt this process when `gone` returns: when its parent is."""

    def watch() -> None:
        gone()
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(END)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
