-- Leasing. The table `due_work` is a projection (projections/due_work.py); these are the statements that
-- workers lock its rows with. Nobody holds a row of it while waiting for the head of the log: an append
-- changes rows of it behind the head's lock. So a lease takes the head first.

-- Leases at most `at_most` runs that are due to `worker` for `seconds`: the most urgent first, then the
-- oldest. Those another worker is leasing at this moment are passed over.
--
-- MATERIALIZED, because otherwise the planner may run the subquery again for each row it joins to, and
-- lease more than it was asked for. One priority at a time, because a condition on run_at narrows the index
-- only behind an exact priority: a million retries that are due later are not walked over.
--
-- Both functions answer with the runs they leased, and with those of them whose last lease ran out.
CREATE FUNCTION lease_unlimited_work(
    worker text, seconds float8, at_most int, OUT leased uuid[], OUT lost uuid[]
) LANGUAGE plpgsql AS $$
BEGIN
    WITH due AS MATERIALIZED (
        SELECT w.run_id, w.leased_by IS NOT NULL AS lost
          FROM generate_series(9, 0, -1) AS p (priority),
               LATERAL (SELECT run_id, leased_by FROM due_work
                         WHERE priority = p.priority AND run_at <= now()
                           AND (lease_until IS NULL OR lease_until <= now())
                           AND concurrency_key IS NULL
                         ORDER BY run_at LIMIT at_most FOR UPDATE SKIP LOCKED) AS w
         LIMIT at_most
    ),
    taken AS (
        UPDATE due_work AS d
           SET leased_by = worker, lease_until = now() + make_interval(secs => seconds)
          FROM due
         WHERE d.run_id = due.run_id
        RETURNING d.run_id, due.lost AS was_lost
    )
    SELECT coalesce(array_agg(run_id), '{}'), coalesce(array_agg(run_id) FILTER (WHERE was_lost), '{}')
      INTO leased, lost FROM taken;
END $$;

-- The same for runs with a concurrency key: of each key no more are leased at a time than the run's limit
-- says. Only for the transaction that holds the lock which lease_due_work takes.
--
-- Runs whose lease ran out come before all others: their worker may be alive and only slow, and until
-- the run is taken over (which fences that worker off) it has its place among those of its key.
CREATE FUNCTION lease_limited_work(
    worker text, seconds float8, at_most int, OUT leased uuid[], OUT lost uuid[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH RECURSIVE keys (key) AS (
        (SELECT concurrency_key FROM due_work WHERE concurrency_key IS NOT NULL
          ORDER BY concurrency_key LIMIT 1)
        UNION ALL
        SELECT (SELECT concurrency_key FROM due_work WHERE concurrency_key > keys.key
                 ORDER BY concurrency_key LIMIT 1)
          FROM keys WHERE keys.key IS NOT NULL
    ),
    held AS MATERIALIZED (
        SELECT concurrency_key AS key, run_id, priority, run_at, concurrency_limit, lease_until > now() AS holds
          FROM due_work WHERE concurrency_key IS NOT NULL AND lease_until IS NOT NULL
    ),
    taken AS (SELECT key, count(*) AS places FROM held WHERE holds GROUP BY key),
    waiting AS (
        SELECT key, run_id, priority, run_at, concurrency_limit, false AS fresh
          FROM held WHERE NOT holds AND run_at <= now()
        UNION ALL
        SELECT keys.key, w.*, true
          FROM keys,
               LATERAL (SELECT run_id, priority, run_at, concurrency_limit FROM due_work
                         WHERE concurrency_key = keys.key AND run_at <= now() AND lease_until IS NULL
                         ORDER BY priority DESC, run_at LIMIT at_most) AS w
         WHERE keys.key IS NOT NULL
    ),
    placed AS (
        SELECT *, row_number() OVER (PARTITION BY key ORDER BY fresh, priority DESC, run_at, run_id) AS place
          FROM waiting
    ),
    ready AS MATERIALIZED (
        SELECT p.run_id, NOT p.fresh AS was_lost
          FROM placed AS p LEFT JOIN taken USING (key)
         WHERE coalesce(taken.places, 0) + p.place <= p.concurrency_limit
         ORDER BY p.fresh, p.priority DESC, p.run_at
         LIMIT at_most
    ),
    changed AS (
        UPDATE due_work AS d
           SET leased_by = worker, lease_until = now() + make_interval(secs => seconds)
          FROM ready
         WHERE d.run_id = ready.run_id AND (d.lease_until IS NULL OR d.lease_until <= now())
        RETURNING d.run_id, ready.was_lost
    )
    SELECT coalesce(array_agg(run_id), '{}'), coalesce(array_agg(run_id) FILTER (WHERE was_lost), '{}')
      INTO leased, lost FROM changed;
END $$;

-- Leases at most `at_most` runs and answers with their events, by stream and version. Those that begin for the
-- first time are `begun`: their RunStarted, version 2, is in the log when this commits. Of the others it is for
-- the caller to say what leasing them means. `chance` (0 or 1) says whom half of an odd number favours.
--
-- Counting how many of a concurrency key are leased and leasing one more must not be done by two at a time,
-- so one transaction at a time leases runs that have one; the others go on with those that have none. Each
-- statement here has a snapshot of its own, so the count sees what the last holder of the lock committed.
--
-- A queue's rows come and go faster than anybody counts them: by its statistics `due_work` is small, and reading
-- it from end to end looks cheap, dead rows and all. So the indexes are insisted on, and plans are kept.
CREATE FUNCTION lease_due_work(worker text, seconds float8, at_most int, chance int)
RETURNS TABLE ("position" bigint, space text, stream text, version int, type text, schema smallint,
               at timestamptz, actor text, correlation text, causation text, data jsonb, begun boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    limited     boolean;
    share       int := 0;
    leased      uuid[] := '{}';
    lost        uuid[] := '{}';
    more        record;
    head_before bigint;
    started_at  timestamptz;
    written     int;
BEGIN
    -- Nobody has to wait for a look that finds nothing.
    IF NOT EXISTS (SELECT FROM generate_series(9, 0, -1) AS p (priority),
                          LATERAL (SELECT FROM due_work
                                    WHERE priority = p.priority AND run_at <= now()
                                      AND (lease_until IS NULL OR lease_until <= now()) LIMIT 1) AS w) THEN
        RETURN;
    END IF;
    SELECT h.position, greatest(h.at, clock_timestamp()) INTO head_before, started_at
      FROM log_head AS h FOR UPDATE;

    SELECT CASE WHEN EXISTS (SELECT FROM due_work WHERE concurrency_key IS NOT NULL AND run_at <= now())
                THEN pg_try_advisory_xact_lock(hashtext('ordinaut.lease_limited_work')) ELSE false END
      INTO limited;
    IF limited THEN
        -- Half to those with a limit, so that neither kind keeps the other waiting.
        share := (at_most + chance) / 2;
        IF share > 0 THEN
            SELECT l.leased, l.lost INTO leased, lost FROM lease_limited_work(worker, seconds, share) AS l;
        END IF;
    END IF;
    IF cardinality(leased) < at_most THEN
        limited := limited AND cardinality(leased) = share;
        SELECT * INTO more FROM lease_unlimited_work(worker, seconds, at_most - cardinality(leased));
        leased := leased || more.leased;
        lost := lost || more.lost;
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
    PERFORM move_head(head_before, head_before + written, started_at);

    RETURN QUERY
    SELECT e.position, e.space, e.stream, e.version, e.type, e.schema, e.at, e.actor, e.correlation, e.causation,
           e.data, e.position > head_before
      FROM unnest(leased) AS run,
           LATERAL (SELECT * FROM events WHERE stream = 'run-' || run ORDER BY version OFFSET 0) AS e;
END $$;
