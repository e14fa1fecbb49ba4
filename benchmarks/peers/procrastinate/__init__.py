"""procrastinate: jobs in PostgreSQL through stored procedures."""
