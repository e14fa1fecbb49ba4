-- What is kept beside the log: how far each projection has read, the vault of keys, and the answers
-- remembered for Idempotency-Key.

CREATE TABLE projection_checkpoints (
    name        text        PRIMARY KEY,
    version     int         NOT NULL,
    position    bigint      NOT NULL DEFAULT 0,
    synchronous boolean     NOT NULL DEFAULT false,
    updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);

-- Folds the next batch of the log, at most `batch` events, into the projection `projection`, and moves its
-- checkpoint: one round trip, one transaction. The checkpoint's row lock keeps a second projector from
-- folding the same batch. Each statement takes its own snapshot, so every event up to the head that is read
-- behind the lock is visible to the fold.
--
-- `ordinaut_fold_<projection>` is made from the projection's module (projections/base.py).
CREATE FUNCTION project(
    projection text, batch int, notifies boolean,
    OUT reached bigint, OUT head bigint, OUT folded bigint
) LANGUAGE plpgsql AS $$
DECLARE
    before  bigint;
    changed boolean;
BEGIN
    -- A look without the lock first: a table that is up to date is nobody's to hold.
    SELECT c.position, h.position INTO reached, head
      FROM projection_checkpoints c, log_head h WHERE c.name = projection;
    folded := 0;
    IF reached IS NULL OR reached >= head THEN
        RETURN;
    END IF;
    SELECT position INTO before FROM projection_checkpoints WHERE name = projection FOR UPDATE;
    SELECT position INTO head FROM log_head;
    reached := greatest(least(head, before + batch), before);
    folded := reached - before;
    IF folded = 0 THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT %I($1, $2)', 'ordinaut_fold_' || projection) INTO changed USING before, reached;
    UPDATE projection_checkpoints SET position = reached, updated_at = clock_timestamp()
     WHERE name = projection;
    IF changed AND notifies THEN
        PERFORM pg_notify('ordinaut_projected', projection);
    END IF;
END $$;

-- Not a projection: secrets never enter an event (I11), so a key's hash is kept only here. The events
-- KeyIssued and KeyRevoked say who got and lost which key.
CREATE TABLE api_keys (
    id         text        PRIMARY KEY,
    hash       bytea       NOT NULL UNIQUE,
    space      text        NOT NULL,
    agent      text        NOT NULL,
    role       text        NOT NULL CHECK (role IN ('admin', 'operator', 'reader')),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

CREATE TABLE idempotency_keys (
    space       text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    seed_ms     bigint      NOT NULL,
    status      int,
    headers     jsonb,
    body        bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
