-- How many bytes the inputs of the held events have, as JSON text: a run gets no more of them than it can take.

ALTER TABLE windows ADD COLUMN sizes int[] NOT NULL DEFAULT '{}';

UPDATE windows SET sizes = ARRAY(
    SELECT octet_length((e.data->'input')::text)
      FROM unnest(positions) WITH ORDINALITY AS held (position, number)
      JOIN events e ON e.position = held.position
     ORDER BY held.number
);
