"""The heart of dflow: what can happen to a run, and what follows from it.

Pure: no clock, no luck, no I/O, no threads, no environment and no user code. Time and luck arrive
in events. Read ``machine.py`` first.
"""
