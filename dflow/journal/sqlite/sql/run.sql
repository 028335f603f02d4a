-- The queries on the record of one run.

-- name: create_meta
INSERT INTO meta (run_id, epoch, events, task_runs, flow_runs, logs, recorded, mark, entry, entry_mark)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: head
-- Who may write, the last number of each table, how far the records have come; and the number of the last page.
SELECT run_id, epoch, events, task_runs, flow_runs, logs, recorded, mark, (SELECT max(number) FROM pages)
FROM meta;

-- name: advance
-- Nothing is changed where another driver has begun, or another event is the last one.
UPDATE meta SET events = ?, task_runs = ?, flow_runs = ?, logs = ?, recorded = ?, mark = ?
WHERE epoch = ? AND max(events, coalesce((SELECT max(number) FROM pages), 0)) = ?;

-- name: begin_epoch
UPDATE meta
SET epoch = ?, events = ?, task_runs = ?, logs = ?, recorded = ?, mark = ?, entry = ?, entry_mark = ?;

-- name: entry
SELECT entry, entry_mark FROM meta;

-- name: insert_page
INSERT INTO pages (number, count, events, mark) VALUES (?, ?, ?, ?);

-- name: insert_lone_page
-- As `advance`, but `meta` stays behind: this is all of a transaction.
INSERT INTO pages (number, count, events, mark, value, value_mark)
SELECT ?, ?, ?, ?, ?, ? FROM meta
WHERE epoch = ? AND max(events, coalesce((SELECT max(number) FROM pages), 0)) = ?;

-- name: pages
-- Pages are never changed, so they fit together whenever they are read.
SELECT number, count, events, mark FROM pages WHERE number > ? ORDER BY number LIMIT ?;

-- name: last_page
SELECT number, count, events, mark FROM pages ORDER BY number DESC LIMIT 1;

-- name: events
-- Those before the first page, which an earlier version wrote.
SELECT number, at, kind, version, task_run_id, fields, mark
FROM events WHERE number > ? AND number <= ? ORDER BY number LIMIT ?;

-- name: last_event_at
SELECT at FROM events ORDER BY number DESC LIMIT 1;

-- name: save_task_run
-- One that is there keeps its value at -1.
INSERT INTO task_runs
    (number, id, flow_run_id, task_name, state_name, label_mark, record, mark, event, valued)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET
    state_name = excluded.state_name,
    label_mark = excluded.label_mark,
    record = excluded.record,
    mark = excluded.mark,
    event = excluded.event,
    valued = CASE excluded.valued WHEN -1 THEN valued ELSE excluded.valued END;

-- name: task_runs
-- A limit of -1 is none.
SELECT number, id, record, mark, event FROM task_runs WHERE number > ? ORDER BY number LIMIT ?;

-- name: task_run
SELECT number, id, record, mark, event, valued FROM task_runs WHERE number = ?;

-- name: state
SELECT state_name FROM task_runs WHERE number = ?;

-- name: ids
SELECT number, id FROM task_runs WHERE number > ? ORDER BY number;

-- name: other_ids
-- Those that are not what their records say: one that is sought may be among them.
SELECT number FROM task_runs WHERE instr(record, CAST(id AS BLOB)) = 0 LIMIT 1;

-- name: counts
-- The mark of a group is checked once, not that of each row.
SELECT flow_run_id, task_name, state_name, label_mark, count(*), min(number)
FROM task_runs
GROUP BY flow_run_id, task_name, state_name, label_mark
ORDER BY min(number);

-- name: views
-- Those that show a file of an earlier version as one of the newest.
SELECT name FROM sqlite_temp_schema WHERE type = 'view';

-- name: save_flow_run
INSERT INTO flow_runs (id, record, mark) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET record = excluded.record, mark = excluded.mark;

-- name: last_flow_run
SELECT coalesce(max(number), 0) FROM flow_runs;

-- name: flow_runs
SELECT number, id, record, mark FROM flow_runs ORDER BY number;

-- name: save_value
INSERT INTO results (run_id, value, mark) VALUES (?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET value = excluded.value, mark = excluded.mark;

-- name: drop_value
DELETE FROM results WHERE run_id IN (VALUES (?));

-- name: values
SELECT run_id, value, mark FROM results ORDER BY run_id;

-- name: value
SELECT run_id, value, mark FROM results WHERE run_id IN (VALUES (?));

-- name: save_task_value
INSERT INTO task_values (number, value, mark) VALUES (?, ?, ?);

-- name: task_value
WITH asked AS (VALUES (?))
SELECT number, value, mark FROM task_values WHERE number IN asked
UNION ALL
SELECT number, value, value_mark FROM pages WHERE number IN asked AND value IS NOT NULL;

-- name: valued
SELECT number, id, valued FROM task_runs WHERE number IN (VALUES (?));

-- name: task_values
SELECT id, valued FROM task_runs WHERE valued > 0 ORDER BY number;

-- name: insert_log
INSERT INTO logs (number, at, flow_run_id, task_run_id, attempt, level, logger, message, worker, mark)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: last_log
SELECT coalesce(max(number), 0) FROM logs;

-- name: logs
SELECT number, at, flow_run_id, task_run_id, attempt, level, logger, message, worker, mark
FROM logs WHERE number > ? AND number <= ? ORDER BY number LIMIT ?;
