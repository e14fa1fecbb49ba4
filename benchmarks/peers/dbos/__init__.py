"""DBOS: durable workflows in PostgreSQL."""
