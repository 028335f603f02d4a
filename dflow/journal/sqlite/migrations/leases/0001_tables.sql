-- Shares of limited things, each held until a time in seconds since 1970.

CREATE TABLE leases (
    key TEXT NOT NULL,
    owner TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (key, owner)
) WITHOUT ROWID;
