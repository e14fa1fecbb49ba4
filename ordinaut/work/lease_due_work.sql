-- Leases at most $3 runs that are due to the worker $1 for $2 seconds: the most urgent first, then the
-- oldest. Those another worker is leasing at this moment are passed over.
--
-- MATERIALIZED, because otherwise the planner may run the subquery again for each row it joins to, and
-- lease more than $3. One priority at a time, because a condition on run_at narrows the index only
-- behind an exact priority: a million retries that are due later are not walked over.
WITH due AS MATERIALIZED (
    SELECT w.run_id
      FROM generate_series(9, 0, -1) AS p (priority),
           LATERAL (SELECT run_id FROM due_work
                     WHERE priority = p.priority AND run_at <= now()
                       AND (lease_until IS NULL OR lease_until <= now())
                       AND concurrency_key IS NULL
                     ORDER BY run_at LIMIT $3 FOR UPDATE SKIP LOCKED) AS w
     LIMIT $3
)
UPDATE due_work AS d
   SET leased_by = $1, lease_until = now() + make_interval(secs => $2)
  FROM due
 WHERE d.run_id = due.run_id
RETURNING d.run_id::text
