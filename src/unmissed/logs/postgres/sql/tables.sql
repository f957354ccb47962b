-- The tables of a log. Rows leave them as fast as they come, so they are vacuumed after a number of changes, however large
-- they once were. Truncating them would lock out everybody, for files that are filled again.

-- One row. Its lock is held while numbers are given out. It changes with an epoch or a server, not with each batch.
CREATE TABLE {schema}.life (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Empty before the first epoch.
    epoch text NOT NULL DEFAULT '',
    first_number bigint NOT NULL DEFAULT 1,
    -- Which copy of the data this is, and since when its server runs: see server_identity().
    server text NOT NULL DEFAULT '',
    run text NOT NULL DEFAULT '',
    -- The copy that is known to be whole. A node that has read it may vouch for a later one.
    trusted text NOT NULL DEFAULT '',
    -- Nothing is stored before this time, so that all nodes can report first what they have read.
    settle_until_ms bigint NOT NULL DEFAULT 0,
    -- Whether the next number is above the clock, as no copy can have used it.
    skips boolean NOT NULL DEFAULT false,
    -- Whether the epoch has had messages: a table that is empty later has lost them.
    has_begun boolean NOT NULL DEFAULT false
);

-- The newest messages, without holes in their numbers but for those that "after" covers.
CREATE TABLE {schema}.messages (
    number bigint PRIMARY KEY,
    unix_ms bigint NOT NULL,
    -- The time on the clock of the log, whose differences are ages.
    log_ms bigint NOT NULL,
    draft bytea NOT NULL,
    -- The number before this one, if numbers were skipped.
    after bigint,
    -- On the last message of a batch: the transactions whose rows of the outbox are numbered.
    seen pg_snapshot
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, vacuum_truncate = off);

-- What was published, by idempotency key, or, with a colon before it, by the id of a publish without one.
CREATE TABLE {schema}.receipts (
    key text PRIMARY KEY,
    -- The publisher whose share the key uses, or empty.
    owner text NOT NULL,
    until_ms bigint NOT NULL,
    first_number bigint NOT NULL,
    count integer NOT NULL,
    unix_ms bigint NOT NULL,
    epoch text NOT NULL,
    fingerprint text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, vacuum_truncate = off);
CREATE INDEX receipts_by_end ON {schema}.receipts (until_ms);

-- How many keys of each owner are remembered. An empty owner has the sum, in which each owner counts as a key, too.
CREATE TABLE {schema}.owners (
    owner text PRIMARY KEY,
    keys bigint NOT NULL
) WITH (fillfactor = 50);

-- One row. The clock of the log advances with the monotonic clocks of the nodes, and that of the keys only while one
-- runs: if the clock of the server jumps, nothing expires early.
CREATE TABLE {schema}.clock (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    log_ms bigint NOT NULL,
    unix_ms bigint NOT NULL,
    keys_ms bigint NOT NULL
) WITH (fillfactor = 50);

-- Insert the rows of the tables that have one: at the creation, and after somebody has emptied the tables.
CREATE FUNCTION {schema}.fill() RETURNS void LANGUAGE sql AS $$
    INSERT INTO {schema}.life DEFAULT VALUES ON CONFLICT DO NOTHING;
    INSERT INTO {schema}.owners VALUES ('', 0) ON CONFLICT DO NOTHING;
    INSERT INTO {schema}.clock
    SELECT true, ms, ms, ms FROM (SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms) AS now
    ON CONFLICT DO NOTHING;
$$;
SELECT {schema}.fill();
