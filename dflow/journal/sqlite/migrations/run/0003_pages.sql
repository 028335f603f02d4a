-- Events come by pages, their values beside them, and records may be behind what their events tell.

-- What one transaction had of events, or a part of it. Those before the first page are in `events`.
CREATE TABLE pages (
    number INTEGER PRIMARY KEY,     -- of its last event
    count INTEGER NOT NULL,
    events BLOB NOT NULL,           -- msgpack: the kind, version and fields of each, without its value
    mark INTEGER NOT NULL
);

-- Small values of task runs; earlier ones, and those of flow runs, are in `results`.
CREATE TABLE task_values (
    number INTEGER PRIMARY KEY,     -- of the event that brought it
    value BLOB NOT NULL,
    mark INTEGER NOT NULL           -- covers the id of the task run, too
);

-- Without an index of ids, which are random: each of many task runs would change another page of it. Whoever
-- looks for one reads the ids once. `event` is the last one that a record has taken in, `valued` the one that
-- brought its value (NULL: an earlier version kept it, -1: none did).
ALTER TABLE task_runs RENAME TO task_runs_before;

CREATE TABLE task_runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    flow_run_id TEXT NOT NULL,
    task_name TEXT NOT NULL,
    state_name TEXT NOT NULL,
    label_mark INTEGER NOT NULL,
    record BLOB NOT NULL,
    mark INTEGER NOT NULL,
    event INTEGER NOT NULL,
    valued INTEGER
);

INSERT INTO task_runs
SELECT number, id, flow_run_id, task_name, state_name, label_mark, record, mark, 0, NULL
FROM task_runs_before;

DROP TABLE task_runs_before;

-- The last event that all records have taken in; NULL as long as that is the last one that there is.
ALTER TABLE meta ADD COLUMN recorded INTEGER;
