-- As before (see 0003_leases.sql, 0008_shorter_ways.sql and 0010_lease_answers.sql), but what is due is told by the
-- time at the call.
CREATE OR REPLACE FUNCTION lease_due_work(worker text, seconds float8, at_most int, chance int)
RETURNS TABLE ("position" bigint, space text, stream text, version int, type text, schema smallint,
               at timestamptz, actor text, correlation text, causation text, data jsonb, begun_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    -- Not now(), when the transaction began: it may have appended what it leases (ordinaut/work/eager.py).
    present     timestamptz := clock_timestamp();
    waits       boolean;
    limited     boolean;
    share       int := 0;
    leased      uuid[] := '{}';
    lost        uuid[] := '{}';
    free        uuid[];
    free_lost   uuid[];
    more        record;
    head_before bigint;
    head_after  bigint;
    started_at  timestamptz;
    written     int;
BEGIN
    -- Nobody has to wait for a look that finds nothing.
    SELECT EXISTS (SELECT FROM generate_series(9, 0, -1) AS p (priority),
                          LATERAL (SELECT FROM due_work
                                    WHERE priority = p.priority AND run_at <= present
                                      AND (lease_until IS NULL OR lease_until <= present) LIMIT 1) AS w),
           EXISTS (SELECT FROM due_work WHERE concurrency_key IS NOT NULL AND run_at <= present)
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
                             WHERE priority = p.priority AND run_at <= present
                               AND (lease_until IS NULL OR lease_until <= present)
                               AND concurrency_key IS NULL
                             ORDER BY run_at LIMIT at_most - cardinality(leased) FOR UPDATE SKIP LOCKED) AS w
             LIMIT at_most - cardinality(leased)
        ),
        taken AS (
            UPDATE due_work AS d
               SET leased_by = worker, lease_until = present + make_interval(secs => seconds)
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

    -- Those that begin have nothing but their first event behind them. LATERAL with an ORDER BY, so that each run
    -- is looked up by the index: whatever the planner believes of a log that was short when it last looked.
    RETURN QUERY
    WITH begun AS MATERIALIZED (
        SELECT e.*, head_before + row_number() OVER () AS start
          FROM unnest(leased) AS run,
               LATERAL (SELECT * FROM events WHERE stream = 'run-' || run ORDER BY version DESC LIMIT 1) AS e
         WHERE e.version = 1 AND run <> ALL (lost)
    ),
    started AS (
        INSERT INTO events (position, space, stream, version, type, at, actor, correlation, causation, data)
        SELECT start, space, stream, 2, 'RunStarted', started_at, 'worker:' || worker, correlation,
               stream || '/1', jsonb_build_object('task', data->>'task', 'attempt', 1, 'worker', worker)
          FROM begun
    )
    SELECT position, space, stream, version, type, schema, at, actor, correlation, causation, data, started_at
      FROM begun;
    GET DIAGNOSTICS written = ROW_COUNT;
    head_after := move_head(head_before, head_before + written, started_at, true);

    IF written < cardinality(leased) THEN
        RETURN QUERY
        SELECT e.position, e.space, e.stream, e.version, e.type, e.schema, e.at, e.actor, e.correlation,
               e.causation, e.data, NULL::timestamptz
          FROM unnest(leased) AS run,
               LATERAL (SELECT * FROM events WHERE stream = 'run-' || run ORDER BY version OFFSET 0) AS e
         WHERE NOT EXISTS (SELECT FROM events WHERE stream = 'run-' || run AND position > head_before);
    END IF;
END $$;
