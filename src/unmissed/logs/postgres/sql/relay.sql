-- Moving rows of an outbox to a log that is elsewhere, in batches. A batch is stored before it is published, so that a node
-- that goes on after a crash publishes the same one, under the same idempotency key.

ALTER TABLE {schema}.outbox ADD COLUMN batch bigint;
CREATE INDEX outbox_by_batch ON {schema}.outbox (batch) WHERE batch IS NOT NULL;
CREATE SEQUENCE {schema}.batches;

-- One row: a name of this outbox in idempotency keys, since another one has the same numbers of batches.
CREATE TABLE {schema}.identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    name text NOT NULL
);
INSERT INTO {schema}.identity (name) VALUES (replace(gen_random_uuid()::text, '-', ''));

-- Return the oldest batch, or a new one of what is visible now, in the order of its insertion: what was committed before a
-- transaction published is in an earlier batch, or before it in the same one.
CREATE FUNCTION {schema}.take_batch(most integer, OUT batch bigint, OUT draft bytea) RETURNS SETOF record
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    number bigint;
BEGIN
    -- One node at a time: two would put rows in two batches.
    PERFORM FROM {schema}.identity FOR UPDATE;
    SELECT min(o.batch) INTO number FROM {schema}.outbox AS o;
    IF number IS NULL THEN
        IF NOT EXISTS (SELECT FROM {schema}.outbox) THEN RETURN; END IF;
        number := nextval('{schema}.batches');
        UPDATE {schema}.outbox AS o SET batch = number
        WHERE o.id = ANY (ARRAY(SELECT v.id FROM {schema}.outbox AS v ORDER BY v.id LIMIT most));
    END IF;
    RETURN QUERY SELECT o.batch, o.draft FROM {schema}.outbox AS o WHERE o.batch = number ORDER BY o.id;
END
$$;

-- Put each row of a batch that was refused in a batch of its own: one message must not hold up the others.
CREATE FUNCTION {schema}.split_batch(number bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.identity FOR UPDATE;
    UPDATE {schema}.outbox AS o SET batch = s.batch
    FROM (
        SELECT id, nextval('{schema}.batches') AS batch
        FROM (SELECT id FROM {schema}.outbox WHERE batch = number ORDER BY id) AS ordered
    ) AS s WHERE o.id = s.id;
END
$$;

CREATE FUNCTION {schema}.remove_batch(number bigint) RETURNS void LANGUAGE sql AS $$
    DELETE FROM {schema}.outbox WHERE batch = number
$$;
