"""The exit codes of the command."""

COMPLETED = 0
"""It completed, or was shown."""
FAILED = 1
"""A run failed, or something is wrong that was looked for."""
WRONG_USAGE = 2
"""What was asked for does not exist or cannot be read."""
INTERRUPTED = 130
"""Ctrl-C or SIGTERM."""
