-- The windows of events that tasks with a pattern collect (ordinaut/intake/windows.py), and how far the log has
-- been read for them. One process at a time moves both, in one transaction with what comes of it. All of it
-- follows from the log: EventCollected puts an event in, WindowClosed takes out what it held.

CREATE TABLE windows (
    task_id      uuid          NOT NULL,
    key          text          NOT NULL,
    space        text          NOT NULL,
    task         text          NOT NULL,
    pattern      jsonb         NOT NULL,
    opened_at    timestamptz,
    positions    bigint[]      NOT NULL,
    instants     timestamptz[] NOT NULL,
    started      int           NOT NULL,
    due_at       timestamptz   NOT NULL,
    PRIMARY KEY (task_id, key)
);
CREATE INDEX ON windows (due_at);
CREATE INDEX ON windows (space, task, key);

INSERT INTO log_readers SELECT 'windows', position FROM log_head;
