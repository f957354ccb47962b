-- The notes between the nodes of a log.

CREATE UNLOGGED TABLE {schema}.notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    unix_ms bigint NOT NULL,
    note bytea NOT NULL
);

-- Send a note to all nodes. Notes become visible in the order of their ids, because only one is sent at a time.
CREATE FUNCTION {schema}.send(note bytea, channel text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint := {schema}.now_us() / 1000;
    new_id bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '1500', true);
    PERFORM pg_advisory_xact_lock('{schema}.notes'::regclass::oid::bigint);
    INSERT INTO {schema}.notes (unix_ms, note) VALUES (now_ms, note) RETURNING id INTO new_id;
    IF new_id % 64 = 0 THEN
        DELETE FROM {schema}.notes WHERE unix_ms NOT BETWEEN now_ms - 30000 AND now_ms + 30000;
    END IF;
    IF channel <> '' THEN PERFORM pg_notify(channel, 'note'); END IF;
END
$$;
