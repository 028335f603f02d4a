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

ALTER TABLE task_runs ADD COLUMN event INTEGER NOT NULL DEFAULT 0;  -- the last that it has taken in
ALTER TABLE task_runs ADD COLUMN valued INTEGER;                    -- the event that brought its value

-- The last event that all records have taken in; NULL as long as that is the last one that there is.
ALTER TABLE meta ADD COLUMN recorded INTEGER;
