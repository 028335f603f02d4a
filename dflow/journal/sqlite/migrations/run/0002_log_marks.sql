-- Log lines have marks, and `meta` knows their last number. Both are NULL for what an earlier version wrote.

ALTER TABLE logs ADD COLUMN mark INTEGER;
ALTER TABLE meta ADD COLUMN logs INTEGER;

-- The lines of one task run are sought among all, whose marks tell whether one is missing.
DROP INDEX logs_of_task_run;
