-- How far the starts of runs that are caught up have been given out (ordinaut/clock/pace.py). One row, that
-- clocks move in the transaction in which they append the runs: who is first has the earlier slots, and a clock
-- that dies before its commit has given none. Not a projection: each slot is in its run's event as `run_at`.
CREATE TABLE catch_up_pace (
    only_row  boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    next_slot timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);
INSERT INTO catch_up_pace DEFAULT VALUES;
