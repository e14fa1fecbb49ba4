"""pgqueuer: jobs in PostgreSQL, FOR UPDATE SKIP LOCKED."""
