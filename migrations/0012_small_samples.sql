-- What ANALYZE samples of the log. With 100, the default, it reads 30,000 rows with all their data and sorts them
-- column by column, about a second every tenth that the log grows by; and as long as it runs, no row that a finished
-- run leaves dead in due_work can be cleared away, and each lease has to pass over all of them. Every query goes by
-- an index; none asks the planner to guess what is in `data`.
ALTER TABLE events
    ALTER COLUMN position    SET STATISTICS 10,
    ALTER COLUMN space       SET STATISTICS 10,
    ALTER COLUMN stream      SET STATISTICS 10,
    ALTER COLUMN version     SET STATISTICS 10,
    ALTER COLUMN type        SET STATISTICS 10,
    ALTER COLUMN schema      SET STATISTICS 10,
    ALTER COLUMN at          SET STATISTICS 10,
    ALTER COLUMN actor       SET STATISTICS 10,
    ALTER COLUMN correlation SET STATISTICS 10,
    ALTER COLUMN causation   SET STATISTICS 10,
    ALTER COLUMN data        SET STATISTICS 0;
