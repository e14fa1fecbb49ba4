-- As before (see 0001_log.sql and 0008_shorter_ways.sql), but what is the same for every append of a batch may be said
-- once: of a thousand appends most are of one space and one actor, at one version, with as many events each, and
-- require the same task. An array costs half a microsecond for each of its elements, on both sides together.
--   a_expected, a_space, a_actor   with one element: it is every append's
--   a_first and e_append           empty: each append has as many events as the others, in their order
--   r_append                       empty: what r_stream and r_version name is required by every append; where that
--                                  conflicts, conflict_append holds NULL, and nothing was appended
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
    each    int := cardinality(e_type) / nullif(cardinality(a_stream), 0);
    written int;
BEGIN
    SELECT position, greatest(at, clock_timestamp()) INTO head_before, appended_at
      FROM log_head FOR UPDATE;

    SELECT array_agg(r.append), array_agg(r.stream), array_agg(coalesce(e.version, 0))
      INTO conflict_append, conflict_stream, conflict_actual
      FROM (SELECT n::int, stream, coalesce(expected, a_expected[1])
              FROM unnest(a_stream, a_expected) WITH ORDINALITY AS a (stream, expected, n)
            UNION ALL
            SELECT * FROM unnest(r_append, r_stream, r_version)) AS r (append, stream, version)
      LEFT JOIN LATERAL (
          SELECT events.version FROM events
           WHERE events.stream = r.stream ORDER BY events.version DESC LIMIT 1
      ) AS e ON true
     WHERE coalesce(e.version, 0) <> r.version;

    -- `<> ALL` of an array with a NULL is never true.
    INSERT INTO events (position, space, stream, version, type, schema, at, actor,
                        correlation, causation, data)
    SELECT head_before + CASE WHEN conflict_append IS NULL THEN e.n ELSE row_number() OVER (ORDER BY e.n) END,
           coalesce(space, a_space[1]), stream,
           coalesce(expected, a_expected[1]) + 1 + (e.n - coalesce(first, (a.n - 1) * each + 1))::int, type,
           e_schema, appended_at, coalesce(actor, a_actor[1]), correlation, causation, data::jsonb
      FROM unnest(e_append, e_type, e_data) WITH ORDINALITY AS e (append, type, data, n)
      JOIN unnest(a_stream, a_expected, a_first, a_space, a_actor, a_correlation, a_causation)
           WITH ORDINALITY AS a (stream, expected, first, space, actor, correlation, causation, n)
        ON a.n = coalesce(e.append, (e.n - 1) / each + 1)
     WHERE conflict_append IS NULL OR a.n <> ALL (conflict_append);
    GET DIAGNOSTICS written = ROW_COUNT;

    head_after := move_head(head_before, head_before + written, appended_at, false);
END $$;
