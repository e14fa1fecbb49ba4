-- The heartbeat: the worker $1 keeps the runs $2 for another $3 seconds. A run that is not in the answer
-- is not this worker's any more (taken over, or ended by somebody else).
--
-- SKIP LOCKED, because an append that ends some of these runs holds their rows, and may want more of them
-- in another order: waiting could be a deadlock. Whoever holds the row of a leased run is ending the lease.
UPDATE due_work AS d SET lease_until = now() + make_interval(secs => $3)
  FROM (SELECT run_id FROM due_work
         WHERE run_id = ANY ($2::uuid[]) AND leased_by = $1 FOR UPDATE SKIP LOCKED) AS mine
 WHERE d.run_id = mine.run_id
RETURNING d.run_id::text
