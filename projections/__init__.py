"""What can be read: one module a read table, holding its DDL, its fold in SQL and its queries."""
