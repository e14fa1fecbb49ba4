-- Whether runs with a concurrency limit are waiting and this transaction may lease them.
--
-- Counting how many of a key are leased and leasing one more must not be done by two at a time, so one
-- transaction at a time leases such runs; the others go on with those that have no limit. The count must
-- be a statement of its own after this one, to see what the last holder of the lock committed.
SELECT CASE WHEN EXISTS (SELECT FROM due_work WHERE concurrency_key IS NOT NULL AND run_at <= now())
            THEN pg_try_advisory_xact_lock(hashtext('ordinaut.lease_limited_work')) ELSE false END
