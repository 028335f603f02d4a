-- What shows a record of version 2 as one of the newest, to those who may only read.

CREATE TEMP VIEW meta AS SELECT *, NULL AS recorded FROM main.meta;
CREATE TEMP VIEW task_runs AS SELECT *, 0 AS event, NULL AS valued FROM main.task_runs;
CREATE TEMP VIEW pages AS
SELECT 0 AS number, 0 AS count, x'' AS events, 0 AS mark, x'' AS value, 0 AS value_mark WHERE 0;
CREATE TEMP VIEW task_values AS SELECT 0 AS number, x'' AS value, 0 AS mark WHERE 0;
