-- A page may be all of a transaction: then it has the value that its last event brought, as `task_values` has
-- others, and `meta` stays behind: the last event is the one of which that knows, or the last one of the pages.
ALTER TABLE pages ADD COLUMN value BLOB;
ALTER TABLE pages ADD COLUMN value_mark INTEGER;
