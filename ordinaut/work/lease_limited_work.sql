-- As lease_due_work.sql, for runs with a concurrency key: of each key no more are leased at a time than
-- the run's limit says. Only in a transaction in which may_lease_limited.sql said true.
--
-- Runs whose lease ran out come before all others: their worker may be alive and only slow, and until
-- the run is taken over (which fences that worker off) it has its place among those of its key.
WITH RECURSIVE keys (key) AS (
    (SELECT concurrency_key FROM due_work WHERE concurrency_key IS NOT NULL
      ORDER BY concurrency_key LIMIT 1)
    UNION ALL
    SELECT (SELECT concurrency_key FROM due_work WHERE concurrency_key > keys.key
             ORDER BY concurrency_key LIMIT 1)
      FROM keys WHERE keys.key IS NOT NULL
),
leased AS MATERIALIZED (
    SELECT concurrency_key AS key, run_id, priority, run_at, concurrency_limit, lease_until > now() AS holds
      FROM due_work WHERE concurrency_key IS NOT NULL AND lease_until IS NOT NULL
),
taken AS (SELECT key, count(*) AS places FROM leased WHERE holds GROUP BY key),
waiting AS (
    SELECT key, run_id, priority, run_at, concurrency_limit, false AS fresh
      FROM leased WHERE NOT holds AND run_at <= now()
    UNION ALL
    SELECT keys.key, w.*, true
      FROM keys,
           LATERAL (SELECT run_id, priority, run_at, concurrency_limit FROM due_work
                     WHERE concurrency_key = keys.key AND run_at <= now() AND lease_until IS NULL
                     ORDER BY priority DESC, run_at LIMIT $3) AS w
     WHERE keys.key IS NOT NULL
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY key ORDER BY fresh, priority DESC, run_at, run_id) AS place
      FROM waiting
),
ready AS MATERIALIZED (
    SELECT p.run_id
      FROM placed AS p LEFT JOIN taken USING (key)
     WHERE coalesce(taken.places, 0) + p.place <= p.concurrency_limit
     ORDER BY p.fresh, p.priority DESC, p.run_at
     LIMIT $3
)
UPDATE due_work AS d
   SET leased_by = $1, lease_until = now() + make_interval(secs => $2)
  FROM ready
 WHERE d.run_id = ready.run_id AND (d.lease_until IS NULL OR d.lease_until <= now())
RETURNING d.run_id::text
