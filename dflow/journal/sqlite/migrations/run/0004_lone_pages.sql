-- A page may be all of a transaction: then it has the value that its last event brought, as `task_values` has
-- others, and `meta` stays behind: the last event is the one of which that knows, or the last one of the pages. That
-- some of these are gone from the end only the watermark tells, which is beside the file.
ALTER TABLE pages ADD COLUMN value BLOB;
ALTER TABLE pages ADD COLUMN value_mark INTEGER;
