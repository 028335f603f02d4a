-- The queries on leases.

-- name: drop_expired
DELETE FROM leases WHERE key = ? AND until <= ?;

-- name: others
SELECT count(*) FROM leases WHERE key = ? AND owner <> ?;

-- name: take
INSERT INTO leases (key, owner, until) VALUES (?, ?, ?)
ON CONFLICT (key, owner) DO UPDATE SET until = excluded.until;

-- name: release
DELETE FROM leases WHERE key = ? AND owner = ?;

-- name: holders
SELECT owner FROM leases WHERE key = ? AND until > ? ORDER BY owner;
