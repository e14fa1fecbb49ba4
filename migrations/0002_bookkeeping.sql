-- What is kept beside the log: how far each projection has read, the vault of keys, and the answers
-- remembered for Idempotency-Key.

CREATE TABLE projection_checkpoints (
    name       text        PRIMARY KEY,
    version    int         NOT NULL,
    position   bigint      NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);

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
