-- Who looks for rows of the outbox, and does the upkeep. The lease fences nothing: others may do the same at any time.

CREATE FUNCTION {schema}.now_us() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- One row. It is UNLOGGED, so it is empty after a crash of the server.
CREATE UNLOGGED TABLE {schema}.lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text NOT NULL,
    until_ms bigint NOT NULL
) WITH (fillfactor = 50);

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
