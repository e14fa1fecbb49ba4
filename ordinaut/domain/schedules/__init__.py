"""When things happen: cron, rrule, once and every, as pure rules without a clock."""
