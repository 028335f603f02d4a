-- All root flow runs, and who drives each. Times are seconds since 1970.

CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    flow_name TEXT NOT NULL,
    created_at REAL NOT NULL,
    state_name TEXT NOT NULL,
    message TEXT NOT NULL,
    changed_at REAL NOT NULL,
    epoch INTEGER NOT NULL,         -- how often the run was claimed
    holder TEXT,                    -- JSON; who claimed it last and has not let go
    heartbeat REAL NOT NULL,
    details TEXT NOT NULL           -- JSON
) WITHOUT ROWID;

CREATE INDEX runs_by_age ON runs (created_at, id);
CREATE INDEX runs_by_name ON runs (name);
