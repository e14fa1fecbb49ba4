-- Of patterns with several parts (`sequence`, `all_of`, `absent`): for each held event the names of those it is.

ALTER TABLE windows ADD COLUMN parts jsonb NOT NULL DEFAULT '[]';
