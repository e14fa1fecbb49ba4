-- The heartbeat: the worker $1 keeps the runs $2 for another $3 seconds. A run that is not in the answer
-- is not this worker's any more (taken over, or ended by somebody else).
UPDATE due_work SET lease_until = now() + make_interval(secs => $3)
 WHERE run_id = ANY ($2::uuid[]) AND leased_by = $1
RETURNING run_id::text
