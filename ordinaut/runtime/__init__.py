"""What every role needs and none owns: settings, servers, the clock of the database, the metrics."""
