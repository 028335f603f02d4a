"""The engine: the shell round the heart, in the driver's process.

It owns the tracker (the one owner of all state), the session of each root flow run, futures, run logs and
the real clock. It must not know what runs attempts or how the journal keeps its record.
"""
