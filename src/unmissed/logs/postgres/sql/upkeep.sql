-- What rules and keys retain longer than the newest messages, and what was lost. Only the upkeep changes it.

-- One row. Its lock is held by the node that does a step.
CREATE TABLE {schema}.upkeep (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- That of the archive; empty before the first step of an epoch.
    epoch text NOT NULL DEFAULT '',
    -- Messages up to this number are filed: what must be kept of them is in the archive.
    filed_through bigint NOT NULL DEFAULT 0,
    -- The rules by which they were filed.
    rules text NOT NULL DEFAULT '',
    bytes bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE {schema}.archive (
    number bigint PRIMARY KEY,
    unix_ms bigint NOT NULL,
    log_ms bigint NOT NULL,
    until_ms bigint NOT NULL,
    -- The pattern of the rule, and the key of the audience that it is about; both empty without a rule.
    pattern text NOT NULL,
    bucket text NOT NULL,
    -- A digest of the audience and the key of a value; NULL for a message without a key.
    identity bytea,
    -- Whether the message counts for the number of messages that its rule keeps.
    counted boolean NOT NULL,
    size integer NOT NULL,
    -- Whether a piece of this value is lost.
    partial boolean NOT NULL DEFAULT false,
    draft bytea NOT NULL
);
CREATE INDEX archive_by_bucket ON {schema}.archive (bucket, number) WHERE counted;
CREATE INDEX archive_by_identity ON {schema}.archive (identity) WHERE identity IS NOT NULL;
CREATE INDEX archive_by_end ON {schema}.archive (until_ms);

-- The highest number of a lost message for each key of an audience. '' is for messages for everyone, '*' for keys that
-- are not remembered and have no rule, and '?' for any client.
CREATE TABLE {schema}.lost (
    who text PRIMARY KEY,
    number bigint NOT NULL
);

-- Begin an epoch with an empty archive. This comes before its messages are deleted: a step of the upkeep takes its locks in
-- the same order.
CREATE FUNCTION {schema}.forget_archive() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {schema}.upkeep SET epoch = '', filed_through = 0, bytes = 0;
    DELETE FROM {schema}.archive;
    DELETE FROM {schema}.lost;
END
$$;

-- Take the lock for a step. No row: another node has it. Return what is filed, and the tail.
CREATE FUNCTION {schema}.begin_upkeep(
    OUT epoch text, OUT filed_epoch text, OUT filed_through bigint, OUT rules text, OUT bytes bigint,
    OUT first_number bigint, OUT oldest bigint, OUT oldest_ms bigint, OUT latest bigint
) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
    SELECT u.epoch, u.filed_through, u.rules, u.bytes INTO filed_epoch, filed_through, rules, bytes
    FROM {schema}.upkeep AS u FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        INSERT INTO {schema}.upkeep DEFAULT VALUES ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    SELECT l.epoch, l.first_number INTO epoch, first_number FROM {schema}.life AS l;
    SELECT number, log_ms INTO oldest, oldest_ms FROM {schema}.messages ORDER BY number LIMIT 1;
    SELECT number INTO latest FROM {schema}.messages ORDER BY number DESC LIMIT 1;
    RETURN NEXT;
END
$$;

-- The number through which the tail can be trimmed: it keeps the newest messages, but none that are too old or too large
-- together. The newest one always stays.
CREATE FUNCTION {schema}.surplus(keep integer, oldest_ms bigint, most_bytes bigint) RETURNS bigint LANGUAGE plpgsql STABLE
SET jit = off AS $$
DECLARE
    newest bigint;
    too_many bigint;
    too_old bigint;
    too_large bigint;
BEGIN
    SELECT max(number) INTO newest FROM {schema}.messages;
    SELECT number INTO too_many FROM {schema}.messages ORDER BY number DESC OFFSET keep LIMIT 1;
    SELECT max(number) INTO too_old FROM {schema}.messages WHERE log_ms <= oldest_ms;
    SELECT number INTO too_large FROM (
        SELECT number, sum(octet_length(draft)) OVER (ORDER BY number DESC) AS bytes FROM {schema}.messages
    ) AS sizes WHERE bytes > most_bytes ORDER BY number DESC LIMIT 1;
    RETURN least(newest - 1, greatest(too_many, too_old, too_large));
END
$$;

-- The first line of a draft: its audience.
CREATE FUNCTION {schema}.head(draft bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT substring(draft FROM 1 FOR position('\x0a'::bytea IN draft) - 1)
$$;
