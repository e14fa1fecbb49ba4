"""The command line: everything an operator does, and `serve` and `dev`, which run the roles."""
