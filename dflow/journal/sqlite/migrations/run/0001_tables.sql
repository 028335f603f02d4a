-- The record of one root flow run.
-- Numbers count from 1 without gaps, and `meta` knows the last ones: what is missing is noticed.
-- A `mark` is the CRC-32 of its row: what was altered is noticed. Times are seconds since 1970.

-- One row. `mark` covers the other columns, but for `entry`, whose mark is its own.
CREATE TABLE meta (
    run_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,         -- which driver may write
    events INTEGER NOT NULL,        -- the last number of each table
    task_runs INTEGER NOT NULL,
    flow_runs INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    entry TEXT,                     -- the run as the catalog lists it, in JSON: to rebuild a catalog
    entry_mark INTEGER
);

-- What happened. `fields` is msgpack, without the columns beside it and without values.
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    task_run_id TEXT,
    fields BLOB NOT NULL,
    mark INTEGER NOT NULL
);

-- What the events left, in the order of creation. The columns before `record` are for counting;
-- `label_mark` covers flow run, task name and state.
CREATE TABLE task_runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    flow_run_id TEXT NOT NULL,
    task_name TEXT NOT NULL,
    state_name TEXT NOT NULL,
    label_mark INTEGER NOT NULL,
    record BLOB NOT NULL,
    mark INTEGER NOT NULL
);

CREATE TABLE flow_runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL,
    mark INTEGER NOT NULL
);

-- Small values, pickled by whoever computed them. Nothing here ever unpickles one.
CREATE TABLE results (
    run_id TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    mark INTEGER NOT NULL
);

CREATE TABLE logs (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    flow_run_id TEXT NOT NULL,
    task_run_id TEXT,
    attempt INTEGER NOT NULL,
    level INTEGER NOT NULL,
    logger TEXT NOT NULL,
    message TEXT NOT NULL,
    worker TEXT NOT NULL
);

CREATE INDEX logs_of_task_run ON logs (task_run_id, number);
