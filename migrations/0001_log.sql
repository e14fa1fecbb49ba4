-- The log: one table, one order, append-only. Everything else can be thrown away and built again.

CREATE TABLE events (
    position    bigint      PRIMARY KEY,
    space       text        NOT NULL,
    stream      text        NOT NULL,
    version     int         NOT NULL CHECK (version >= 1),
    type        text        NOT NULL,
    schema      smallint    NOT NULL DEFAULT 1,
    at          timestamptz NOT NULL,
    actor       text        NOT NULL,
    correlation text        NOT NULL,
    causation   text,
    data        jsonb       NOT NULL,
    UNIQUE (stream, version)
);

-- Every index is paid for by every event, so these hold only what the others do not lead to.
--
-- "Why did this run, and what came of it?" A run that is its own beginning has its stream's name for a
-- correlation, and is found by that.
CREATE INDEX events_correlation ON events (correlation, position) WHERE stream <> 'run-' || correlation;
-- "Every RunFailed": the types that make up nearly all of the log are met often enough by reading along.
CREATE INDEX events_type ON events (type, position)
 WHERE type NOT IN ('RunRequested', 'RunStarted', 'StepSucceeded', 'RunSucceeded');
-- "Which tasks are new?", asked before every batch of stream entries is decided on.
CREATE INDEX events_tasks ON events (position) WHERE stream LIKE 'task-%';
-- "What did this person do?" The roles' own events are nearly all of the log and need no index.
CREATE INDEX events_actor ON events (actor, position) WHERE actor LIKE 'key:%';
-- Time never runs backwards along position (append_events sees to it), so a block range index is enough.
CREATE INDEX events_at ON events USING brin (at) WITH (pages_per_range = 32, autosummarize = on);

-- One row: where the log ends. Its row lock is what puts all appends in one order.
CREATE TABLE log_head (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    log_id   uuid        NOT NULL DEFAULT gen_random_uuid(),
    position bigint      NOT NULL DEFAULT 0,
    at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);
INSERT INTO log_head DEFAULT VALUES;

-- I3: refused by the database, whoever asks. Statement level, so that an UPDATE that would touch no
-- row is told as well.
CREATE FUNCTION refuse_log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log is append-only: % on table "events" is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'Append a new event that says what changed.';
END $$;

CREATE TRIGGER events_are_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_log_change();

-- The end of every append: moves the head, tells those who wait, and keeps `due_work` in step.
--
-- `due_work` is folded in the same transaction (projections/due_work.py). Where somebody holds its checkpoint
-- (a rebuild, a projector that catches up) it is passed over, and whoever has it next folds what is missing:
-- waiting for it here could be waiting for one who waits for us.
CREATE FUNCTION move_head(head_before bigint, head_after bigint, appended_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    folded bigint;
    wakes  boolean;
BEGIN
    IF head_after > head_before THEN
        UPDATE log_head SET position = head_after, at = appended_at;
        -- Wake-ups, not truth: one a batch, because NOTIFY takes a database-wide lock at commit.
        PERFORM pg_notify('ordinaut_log', head_after::text);
    END IF;

    SELECT position INTO folded FROM projection_checkpoints
     WHERE name = 'due_work' AND synchronous AND head_after BETWEEN position + 1 AND position + 10000
       FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        -- By name and not by EXECUTE, whose statement would be planned anew at every append.
        wakes := ordinaut_fold_due_work(folded, head_after);
        UPDATE projection_checkpoints SET position = head_after, updated_at = appended_at
         WHERE name = 'due_work';
        IF wakes THEN
            PERFORM pg_notify('ordinaut_projected', 'due_work');
        END IF;
    END IF;
END $$;

-- Appends a batch. Call it last in a transaction: the lock on log_head lives until commit.
--
--   a_*  the appends: each to one stream, which must be at the version a_expected; a_first is the number
--        of its first event among e_*. No two name the same stream.
--   e_*  the events of all appends, one append's behind the other's; e_append is the append's number.
--   r_*  what appends require beside that: other streams, and the versions they must be at.
--
-- An append with a requirement unmet contributes nothing; the others stand. Numbers count from 1.
--
-- Every statement in a plpgsql function takes a snapshot of its own under READ COMMITTED, so what
-- follows the row lock sees everything that was committed before it. UNIQUE (stream, version) stands
-- behind it all.
CREATE FUNCTION append_events(
    a_stream text[], a_expected int[], a_first int[], a_space text[], a_actor text[],
    a_correlation text[], a_causation text[],
    e_append int[], e_type text[], e_data text[],
    r_append int[], r_stream text[], r_version int[],
    e_schema smallint DEFAULT 1,
    OUT head_before bigint, OUT head_after bigint, OUT appended_at timestamptz,
    OUT conflict_append int[], OUT conflict_stream text[], OUT conflict_actual int[]
) LANGUAGE plpgsql
-- The planner takes the arrays' lengths for knowledge and would plan anew at every call, which costs as much
-- as a small append itself. The plans are the same for any length.
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    written int;
BEGIN
    SELECT position, greatest(at, clock_timestamp()) INTO head_before, appended_at
      FROM log_head FOR UPDATE;

    SELECT array_agg(r.append), array_agg(r.stream), array_agg(coalesce(e.version, 0))
      INTO conflict_append, conflict_stream, conflict_actual
      FROM (SELECT n::int, stream, expected
              FROM unnest(a_stream, a_expected) WITH ORDINALITY AS a (stream, expected, n)
            UNION ALL
            SELECT * FROM unnest(r_append, r_stream, r_version)) AS r (append, stream, version)
      LEFT JOIN LATERAL (
          SELECT events.version FROM events
           WHERE events.stream = r.stream ORDER BY events.version DESC LIMIT 1
      ) AS e ON true
     WHERE coalesce(e.version, 0) <> r.version;

    INSERT INTO events (position, space, stream, version, type, schema, at, actor,
                        correlation, causation, data)
    SELECT head_before + CASE WHEN conflict_append IS NULL THEN e.n ELSE row_number() OVER (ORDER BY e.n) END,
           space, stream, expected + 1 + (e.n - first)::int, type, e_schema, appended_at, actor,
           correlation, causation, data::jsonb
      FROM unnest(e_append, e_type, e_data) WITH ORDINALITY AS e (append, type, data, n)
      JOIN unnest(a_stream, a_expected, a_first, a_space, a_actor, a_correlation, a_causation)
           WITH ORDINALITY AS a (stream, expected, first, space, actor, correlation, causation, n)
        ON a.n = e.append
     WHERE conflict_append IS NULL OR append <> ALL (conflict_append);
    GET DIAGNOSTICS written = ROW_COUNT;

    head_after := head_before + written;
    PERFORM move_head(head_before, head_after, appended_at);
END $$;
