-- The ways of a single run through the log, with fewer statements on them: where little is going on, a statement
-- in a function costs what it takes to get its plan and its code back into the processor's caches, which is more
-- than what it does.

-- Which of the types `wanted` are among the events after one position up to another. Those that make up nearly all
-- of the log are met soon by reading along, the others are in the index events_type: nothing reads a batch from
-- end to end to learn that nothing in it concerns a table. OFFSET 0, because otherwise the planner may do just that.
CREATE FUNCTION types_between(after bigint, upto bigint, wanted text[]) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (
        SELECT array_agg(t) FROM unnest(wanted) AS t
         WHERE CASE WHEN t IN ('RunRequested', 'RunStarted', 'StepSucceeded', 'RunSucceeded')
                    THEN EXISTS (SELECT FROM events
                                  WHERE position > after AND position <= upto AND type = t OFFSET 0)
                    ELSE EXISTS (SELECT FROM events
                                  WHERE position > after AND position <= upto AND type = t
                                    AND type NOT IN ('RunRequested', 'RunStarted', 'StepSucceeded', 'RunSucceeded')
                                 OFFSET 0)
               END);
END $$;

-- As before (see 0001_log.sql), but it answers with the head; and where `starts` says that only RunStarted was
-- appended, which changes no row of `due_work`, its checkpoint is moved without a look at the events.
--
-- pg_notify is assigned and not performed: PERFORM would be a query.
DROP FUNCTION move_head(bigint, bigint, timestamptz);
CREATE FUNCTION move_head(head_before bigint, head_after bigint, appended_at timestamptz, starts boolean)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    folded bigint;
    told   text;
BEGIN
    IF head_after > head_before THEN
        UPDATE log_head SET position = head_after, at = appended_at;
        -- Wake-ups, not truth: one a batch, because NOTIFY takes a database-wide lock at commit.
        told := pg_notify('ordinaut_log', head_after::text);
    END IF;

    SELECT position INTO folded FROM projection_checkpoints
     WHERE name = 'due_work' AND synchronous AND head_after BETWEEN position + 1 AND position + 10000
       FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        -- By name and not by EXECUTE, whose statement would be planned anew at every append.
        IF NOT (starts AND folded = head_before) AND ordinaut_fold_due_work(folded, head_after) THEN
            told := pg_notify('ordinaut_projected', 'due_work');
        END IF;
        UPDATE projection_checkpoints SET position = head_after, updated_at = appended_at
         WHERE name = 'due_work';
    END IF;
    RETURN head_after;
END $$;

-- As before (see 0001_log.sql).
CREATE OR REPLACE FUNCTION append_events(
    a_stream text[], a_expected int[], a_first int[], a_space text[], a_actor text[],
    a_correlation text[], a_causation text[],
    e_append int[], e_type text[], e_data text[],
    r_append int[], r_stream text[], r_version int[],
    e_schema smallint DEFAULT 1,
    OUT head_before bigint, OUT head_after bigint, OUT appended_at timestamptz,
    OUT conflict_append int[], OUT conflict_stream text[], OUT conflict_actual int[]
) LANGUAGE plpgsql
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

    head_after := move_head(head_before, head_before + written, appended_at, false);
END $$;

-- As before (see 0003_leases.sql), but whether anything is due, and whether any of it is limited, is one look; and
-- what has no concurrency key is leased here, and no function of its own.
DROP FUNCTION lease_unlimited_work(text, float8, int);
CREATE OR REPLACE FUNCTION lease_due_work(worker text, seconds float8, at_most int, chance int)
RETURNS TABLE ("position" bigint, space text, stream text, version int, type text, schema smallint,
               at timestamptz, actor text, correlation text, causation text, data jsonb, begun boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    waits       boolean;
    limited     boolean;
    share       int := 0;
    leased      uuid[] := '{}';
    lost        uuid[] := '{}';
    free        uuid[];
    free_lost   uuid[];
    more        record;
    head_before bigint;
    started_at  timestamptz;
    written     int;
BEGIN
    -- Nobody has to wait for a look that finds nothing.
    SELECT EXISTS (SELECT FROM generate_series(9, 0, -1) AS p (priority),
                          LATERAL (SELECT FROM due_work
                                    WHERE priority = p.priority AND run_at <= now()
                                      AND (lease_until IS NULL OR lease_until <= now()) LIMIT 1) AS w),
           EXISTS (SELECT FROM due_work WHERE concurrency_key IS NOT NULL AND run_at <= now())
      INTO waits, limited;
    IF NOT waits THEN
        RETURN;
    END IF;
    SELECT h.position, greatest(h.at, clock_timestamp()) INTO head_before, started_at
      FROM log_head AS h FOR UPDATE;

    limited := limited AND pg_try_advisory_xact_lock(hashtext('ordinaut.lease_limited_work'));
    IF limited THEN
        -- Half to those with a limit, so that neither kind keeps the other waiting.
        share := (at_most + chance) / 2;
        IF share > 0 THEN
            SELECT l.leased, l.lost INTO leased, lost FROM lease_limited_work(worker, seconds, share) AS l;
        END IF;
    END IF;
    IF cardinality(leased) < at_most THEN
        limited := limited AND cardinality(leased) = share;
        -- MATERIALIZED, because otherwise the planner may run the subquery again for each row it joins to, and
        -- lease more than it was asked for. One priority at a time, because a condition on run_at narrows the
        -- index only behind an exact priority: a million retries that are due later are not walked over.
        WITH due AS MATERIALIZED (
            SELECT w.run_id, w.leased_by IS NOT NULL AS lost
              FROM generate_series(9, 0, -1) AS p (priority),
                   LATERAL (SELECT run_id, leased_by FROM due_work
                             WHERE priority = p.priority AND run_at <= now()
                               AND (lease_until IS NULL OR lease_until <= now())
                               AND concurrency_key IS NULL
                             ORDER BY run_at LIMIT at_most - cardinality(leased) FOR UPDATE SKIP LOCKED) AS w
             LIMIT at_most - cardinality(leased)
        ),
        taken AS (
            UPDATE due_work AS d
               SET leased_by = worker, lease_until = now() + make_interval(secs => seconds)
              FROM due
             WHERE d.run_id = due.run_id
            RETURNING d.run_id, due.lost AS was_lost
        )
        SELECT coalesce(array_agg(run_id), '{}'), coalesce(array_agg(run_id) FILTER (WHERE was_lost), '{}')
          INTO free, free_lost FROM taken;
        leased := leased || free;
        lost := lost || free_lost;
    END IF;
    IF limited AND cardinality(leased) < at_most THEN
        SELECT * INTO more FROM lease_limited_work(worker, seconds, at_most - cardinality(leased));
        leased := leased || more.leased;
        lost := lost || more.lost;
    END IF;

    -- LATERAL with an ORDER BY, so that each run is looked up by the index: whatever the planner believes of
    -- a log that was short when it last looked.
    INSERT INTO events (position, space, stream, version, type, at, actor, correlation, causation, data)
    SELECT head_before + row_number() OVER (), e.space, e.stream, 2, 'RunStarted', started_at,
           'worker:' || worker, e.correlation, e.stream || '/1',
           jsonb_build_object('task', e.data->>'task', 'attempt', 1, 'worker', worker)
      FROM unnest(leased) AS run,
           LATERAL (SELECT * FROM events WHERE stream = 'run-' || run ORDER BY version DESC LIMIT 1) AS e
     WHERE e.version = 1 AND run <> ALL (lost);
    GET DIAGNOSTICS written = ROW_COUNT;
    written := move_head(head_before, head_before + written, started_at, true) - head_before;

    RETURN QUERY
    SELECT e.position, e.space, e.stream, e.version, e.type, e.schema, e.at, e.actor, e.correlation, e.causation,
           e.data, e.position > head_before
      FROM unnest(leased) AS run,
           LATERAL (SELECT * FROM events WHERE stream = 'run-' || run ORDER BY version OFFSET 0) AS e;
END $$;
