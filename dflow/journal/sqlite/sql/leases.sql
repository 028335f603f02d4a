-- The queries on leases.

-- name: drop_expired
DELETE FROM leases WHERE key = ? AND until <= ?;

-- name: others
SELECT owner, holder FROM leases WHERE key = ? AND owner <> ?;

-- name: take
INSERT INTO leases (key, owner, until, holder) VALUES (?, ?, ?, ?)
ON CONFLICT (key, owner) DO UPDATE SET until = excluded.until, holder = excluded.holder;

-- name: renew
UPDATE leases SET until = ? WHERE owner = ? AND until > ?;

-- name: release
DELETE FROM leases WHERE key = ? AND owner = ?;

-- name: release_all
DELETE FROM leases WHERE owner = ?;

-- name: holders
SELECT owner, holder FROM leases WHERE key = ? AND until > ? ORDER BY owner;
