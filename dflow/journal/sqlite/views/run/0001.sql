-- What shows a record of version 1 as one of the newest, to those who may only read.
-- (Each begins with all columns: if the file is migrated meanwhile, its own come first.)

CREATE TEMP VIEW logs AS SELECT *, NULL AS mark FROM main.logs;
CREATE TEMP VIEW meta AS SELECT *, NULL AS logs FROM main.meta;
