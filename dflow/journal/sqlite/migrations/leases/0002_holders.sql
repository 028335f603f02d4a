-- The process on whose life a share depends, in JSON: when it is dead, others take its share at once.

ALTER TABLE leases ADD COLUMN holder TEXT;

CREATE INDEX leases_by_owner ON leases (owner);
