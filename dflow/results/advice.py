"""What to do about the errors of file systems."""

from __future__ import annotations

import errno

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def said(error: Exception) -> str:
    """Return what an error says, as a sentence."""
    text = " ".join(str(error).split()) or repr(error)
    return text if text.endswith(".") else f"{text}."


def advice(error: Exception) -> str:
    """Return what to do about an error of a file system."""
    if isinstance(error, ImportError):
        return (
            "Its package is not installed here: install what the message names, on workers too, or set "
            "result_storage= or DFLOW_RESULT_STORAGE to another place."
        )
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return "Make room there, or set result_storage= or DFLOW_RESULT_STORAGE to another place."
    if number in _REFUSED or isinstance(error, PermissionError):
        return "Ask for the permission, or set result_storage= or DFLOW_RESULT_STORAGE to another place."
    return "Check that the place is there and can be reached, from workers too."
