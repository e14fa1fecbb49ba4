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
ready AS MATERIALIZED (
    SELECT w.run_id
      FROM keys,
           LATERAL (SELECT count(*) AS leased FROM due_work
                     WHERE concurrency_key = keys.key AND lease_until > now()) AS taken,
           LATERAL (SELECT *, row_number() OVER (ORDER BY fresh, priority DESC, run_at, run_id) AS place
                      FROM ((SELECT run_id, priority, run_at, concurrency_limit, false AS fresh
                               FROM due_work
                              WHERE concurrency_key = keys.key AND run_at <= now() AND lease_until <= now()
                              ORDER BY priority DESC, run_at, run_id LIMIT $3)
                            UNION ALL
                            (SELECT run_id, priority, run_at, concurrency_limit, true
                               FROM due_work
                              WHERE concurrency_key = keys.key AND run_at <= now() AND lease_until IS NULL
                              ORDER BY priority DESC, run_at, run_id LIMIT $3)) AS first) AS w
     WHERE keys.key IS NOT NULL AND taken.leased + w.place <= w.concurrency_limit
     ORDER BY w.fresh, w.priority DESC, w.run_at
     LIMIT $3
)
UPDATE due_work AS d
   SET leased_by = $1, lease_until = now() + make_interval(secs => $2)
  FROM ready
 WHERE d.run_id = ready.run_id AND (d.lease_until IS NULL OR d.lease_until <= now())
RETURNING d.run_id::text
