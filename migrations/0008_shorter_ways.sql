-- The ways of a single run through the log, with fewer statements on them: where little is going on, a statement
-- in a function costs what it takes to get its plan and its code back into the processor's caches, which is more
-- than what it does.

-- Which of the types `wanted` are among the events after one position up to another. Those that make up nearly all
-- of the log are met soon by reading along, the others are in the index events_type: nothing reads a batch from
-- end to end to learn that nothing in it concerns a table. OFFSET 0, because otherwise the planner may do just that.
CREATE FUNCTION types_between(after bigint, upto bigint, wanted text[]) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (
        SELECT array_agg(t) FROM unnest(wanted) AS t
         WHERE CASE WHEN t IN ('RunRequested', 'RunStarted', 'StepSucceeded', 'RunSucceeded')
                    THEN EXISTS (SELECT FROM events
                                  WHERE position > after AND position <= upto AND type = t OFFSET 0)
                    ELSE EXISTS (SELECT FROM events
                                  WHERE position > after AND position <= upto AND type = t
                                    AND type NOT IN ('RunRequested', 'RunStarted', 'StepSucceeded', 'RunSucceeded')
                                 OFFSET 0)
               END);
END $$;

-- As before (see 0001_log.sql), but it answers with the head; and where `starts` says that only RunStarted was
-- appended, which changes no row of `due_work`, its checkpoint is moved without a look at the events.
--
-- pg_notify is assigned and not performed: PERFORM would be a query.
DROP FUNCTION move_head(bigint, bigint, timestamptz);
CREATE FUNCTION move_head(head_before bigint, head_after bigint, appended_at timestamptz, starts boolean)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    folded bigint;
    told   text;
BEGIN
    IF head_after > head_before THEN
        UPDATE log_head SET position = head_after, at = appended_at;
        -- Wake-ups, not truth: one a batch, because NOTIFY takes a database-wide lock at commit.
        told := pg_notify('ordinaut_log', head_after::text);
    END IF;

    SELECT position INTO folded FROM projection_checkpoints
     WHERE name = 'due_work' AND synchronous AND head_after BETWEEN position + 1 AND position + 10000
       FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        -- By name and not by EXECUTE, whose statement would be planned anew at every append.
        IF NOT (starts AND folded = head_before) AND ordinaut_fold_due_work(folded, head_after) THEN
            told := pg_notify('ordinaut_projected', 'due_work');
        END IF;
        UPDATE projection_checkpoints SET position = head_after, updated_at = appended_at
         WHERE name = 'due_work';
    END IF;
    RETURN head_after;
END $$;

-- As before (see 0001_log.sql).
CREATE OR REPLACE FUNCTION append_events(
    a_stream text[], a_expected int[], a_first int[], a_space text[], a_actor text[],
    a_correlation text[], a_causation text[],
    e_append int[], e_type text[], e_data text[],
    r_append int[], r_stream text[], r_version int[],
    e_schema smallint DEFAULT 1,
    OUT head_before bigint, OUT head_after bigint, OUT appended_at timestamptz,
    OUT conflict_append int[], OUT conflict_stream text[], OUT conflict_actual int[]
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    written int;
BEGIN
    SELECT position, greatest(at, clock_timestamp()) INTO head_before, appended_at
      FROM log_head FOR UPDATE;

    SELECT array_agg(r.append), array_agg(r.stream), array_agg(coalesce(e.version, 0))
      INTO conflict_append, conflict_stream, conflict_actual
      FROM (SELECT n::int, stream, expected
              FROM unnest(a_stream, a_expected) WITH ORDINALITY AS a (stream, expected, n)
            UNION ALL
            SELECT * FROM unnest(r_append, r_stream, r_version)) AS r (append, stream, version)
      LEFT JOIN LATERAL (
          SELECT events.version FROM events
           WHERE events.stream = r.stream ORDER BY events.version DESC LIMIT 1
      ) AS e ON true
     WHERE coalesce(e.version, 0) <> r.version;

    INSERT INTO events (position, space, stream, version, type, schema, at, actor,
                        correlation, causation, data)
    SELECT head_before + CASE WHEN conflict_append IS NULL THEN e.n ELSE row_number() OVER (ORDER BY e.n) END,
           space, stream, expected + 1 + (e.n - first)::int, type, e_schema, appended_at, actor,
           correlation, causation, data::jsonb
      FROM unnest(e_append, e_type, e_data) WITH ORDINALITY AS e (append, type, data, n)
      JOIN unnest(a_stream, a_expected, a_first, a_space, a_actor, a_correlation, a_causation)
           WITH ORDINALITY AS a (stream, expected, first, space, actor, correlation, causation, n)
        ON a.n = e.append
     WHERE conflict_append IS NULL OR append <> ALL (conflict_append);
    GET DIAGNOSTICS written = ROW_COUNT;

    head_after := move_head(head_before, head_before + written, appended_at, false);
END $$;
