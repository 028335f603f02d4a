-- The queries on the catalog. The columns of a run always come in the order of the table.

-- name: insert
INSERT INTO runs
    (id, name, flow_name, created_at, state_name, message, changed_at, epoch, holder, heartbeat, details)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: by_id
SELECT id, name, flow_name, created_at, state_name, message, changed_at, epoch, holder, heartbeat, details
FROM runs WHERE id = ?;

-- name: by_name
SELECT id, name, flow_name, created_at, state_name, message, changed_at, epoch, holder, heartbeat, details
FROM runs WHERE name = ? ORDER BY created_at DESC, id DESC;

-- name: by_start
-- Not LIKE, which would read % and _ in what a user typed.
SELECT id, name, flow_name, created_at, state_name, message, changed_at, epoch, holder, heartbeat, details
FROM runs WHERE substr(id, 1, length(:start)) = :start AND :start <> '' ORDER BY created_at DESC, id DESC;

-- name: newest
-- A limit of -1 is none.
SELECT id, name, flow_name, created_at, state_name, message, changed_at, epoch, holder, heartbeat, details
FROM runs ORDER BY created_at DESC, id DESC LIMIT ?;

-- name: claim
UPDATE runs SET epoch = ?, holder = ?, heartbeat = ? WHERE id = ?;

-- name: heartbeat
UPDATE runs SET heartbeat = ? WHERE id = ? AND epoch = ?;

-- name: update
UPDATE runs SET state_name = ?, message = ?, changed_at = ? WHERE id = ? AND epoch = ?;

-- name: release
UPDATE runs SET holder = NULL WHERE id = ? AND epoch = ?;

-- name: delete
DELETE FROM runs WHERE id = ? AND epoch = ?;
