-- What shows a record of version 3 as one of the newest, to those who may only read.

CREATE TEMP VIEW pages AS SELECT *, NULL AS value, NULL AS value_mark FROM main.pages;
