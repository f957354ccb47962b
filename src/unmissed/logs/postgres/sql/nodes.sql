-- The nodes of a log: which of them looks for rows of the outbox, and the notes between them.

-- Take or keep the lease for some milliseconds. Return 0 to its holder, and to others the milliseconds until it ends.
CREATE FUNCTION {schema}.lead(node text, lease_ms bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint := {schema}.now_us() / 1000;
    held {schema}.lease;
BEGIN
    SELECT * INTO held FROM {schema}.lease;
    -- The clock of the server may have been set back.
    IF FOUND AND held.holder <> node AND held.until_ms BETWEEN now_ms + 1 AND now_ms + lease_ms THEN
        RETURN held.until_ms - now_ms;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '500', true);
    INSERT INTO {schema}.lease AS l VALUES (true, node, now_ms + lease_ms)
    ON CONFLICT (one) DO UPDATE SET holder = node, until_ms = now_ms + lease_ms
    WHERE l.holder = node OR l.until_ms NOT BETWEEN now_ms + 1 AND now_ms + lease_ms;
    RETURN CASE WHEN FOUND THEN 0 ELSE lease_ms END;
END
$$;

-- End the lease of a node that closes.
CREATE FUNCTION {schema}.resign(node text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM {schema}.lease WHERE holder = node
$$;

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
