-- How far those have come who read the whole log and are no projection: `events` starts the runs of tasks that
-- listen to the log's own events. What was there before is nobody's to react to.

CREATE TABLE log_readers (
    name     text   PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO log_readers SELECT 'events', position FROM log_head;
