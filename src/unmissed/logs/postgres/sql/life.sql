-- The life of a log: which copy of the data this is, what a node has read of it, and when another epoch begins.

-- A copy of the data has another system identifier, another timeline, or, after a dump, another database or table.
CREATE FUNCTION {schema}.server_identity() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN concat_ws(
        '/', (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        '{schema}.life'::regclass::oid
    );
END
$$;

-- The run of the server, with what else of the identity changes without a restart. It costs a tenth of the identity, which
-- is only looked at after a change.
CREATE FUNCTION {schema}.server_run() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN concat_ws(
        '/', extract(epoch FROM pg_postmaster_start_time()),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        '{schema}.life'::regclass::oid
    );
END
$$;

-- The newest message, or, before the first one, the number before it. In plpgsql, the plan is made once for a connection.
CREATE FUNCTION {schema}.newest(OUT number bigint, OUT log_ms bigint, OUT unix_ms bigint, OUT seen pg_snapshot)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT m.number, m.log_ms, m.unix_ms, m.seen INTO number, log_ms, unix_ms, seen
    FROM {schema}.messages AS m ORDER BY m.number DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT l.first_number - 1 INTO number FROM {schema}.life AS l;
    END IF;
END
$$;

-- Whether messages that a node has read are missing, or other messages have their numbers.
CREATE FUNCTION {schema}.has_lost(life {schema}.life, latest bigint, seen_epoch text, seen_latest bigint, seen_ms bigint)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    stored_ms bigint;
BEGIN
    IF life.has_begun AND latest < life.first_number THEN RETURN true; END IF;
    IF seen_epoch = '' THEN RETURN false; END IF;
    IF seen_epoch <> life.epoch THEN RETURN seen_latest >= life.first_number; END IF;
    IF seen_latest > latest THEN RETURN true; END IF;
    IF seen_ms = 0 THEN RETURN false; END IF;
    SELECT unix_ms INTO stored_ms FROM {schema}.messages WHERE number = seen_latest;
    IF FOUND THEN RETURN stored_ms <> seen_ms; END IF;
    -- It was trimmed, or it is gone although earlier messages are stored.
    RETURN EXISTS (SELECT FROM {schema}.messages WHERE number < seen_latest);
END
$$;

CREATE FUNCTION {schema}.begin_epoch(
    life {schema}.life, latest bigint, new_epoch text, wanted_first bigint, seen_epoch text, seen_latest bigint
) RETURNS {schema}.life LANGUAGE plpgsql AS $$
BEGIN
    -- At least one number is skipped, so that a reader always notices the new epoch.
    life.first_number := greatest({schema}.now_us() + 1, latest + 2, seen_latest + 2);
    IF life.epoch = '' AND seen_epoch = '' AND wanted_first > 0 THEN life.first_number := wanted_first; END IF;
    life.epoch := new_epoch;
    life.server := {schema}.server_identity();
    life.run := {schema}.server_run();
    life.trusted := life.server;
    life.settle_until_ms := 0;
    life.skips := false;
    life.has_begun := false;
    PERFORM {schema}.forget_archive();
    DELETE FROM {schema}.messages;
    RETURN life;
END
$$;

-- Return the life as it is now, seen by this node: after a change of the server, in doubt until a node vouches for it.
CREATE FUNCTION {schema}.continued(
    life {schema}.life, latest bigint, settle_ms integer, new_epoch text, wanted_first bigint,
    seen_epoch text, seen_latest bigint, seen_ms bigint, seen_server text
) RETURNS {schema}.life LANGUAGE plpgsql AS $$
DECLARE
    now_ms bigint := {schema}.now_us() / 1000;
    run text := {schema}.server_run();
BEGIN
    IF life.epoch = '' OR {schema}.has_lost(life, latest, seen_epoch, seen_latest, seen_ms) THEN
        RETURN {schema}.begin_epoch(life, latest, new_epoch, wanted_first, seen_epoch, seen_latest);
    END IF;
    IF life.run <> run THEN
        -- This copy may be an old one. Before a number is used, nodes that have read more get time to report it.
        -- Numbers continue above the clock, where no copy can have used one.
        life.run := run;
        life.server := {schema}.server_identity();
        life.settle_until_ms := now_ms + settle_ms;
        life.skips := true;
    END IF;
    -- The clock of the server may have been set back.
    life.settle_until_ms := least(life.settle_until_ms, now_ms + settle_ms);
    IF life.trusted <> life.server THEN
        IF seen_epoch = life.epoch AND seen_server = life.trusted THEN
            life.trusted := life.server;
        ELSIF now_ms >= life.settle_until_ms THEN
            RETURN {schema}.begin_epoch(life, latest, new_epoch, wanted_first, seen_epoch, seen_latest);
        END IF;
    END IF;
    RETURN life;
END
$$;

-- The time on the clock of the log. ``caller_ms`` is what the caller knows of it, or -1 if it has just started: then, the
-- time on the clock of the server since the last known time is added.
CREATE FUNCTION {schema}.log_time(caller_ms bigint, newest_ms bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    known {schema}.clock;
    now_ms bigint := {schema}.now_us() / 1000;
BEGIN
    SELECT * INTO known FROM {schema}.clock;
    IF caller_ms < 0 THEN
        caller_ms := known.log_ms + greatest(0, now_ms - known.unix_ms);
    END IF;
    RETURN greatest(caller_ms, known.log_ms, newest_ms);
END
$$;

-- The number of the latest message, as the snapshot of the caller sees it: a state that is read in the same snapshot
-- contains what all messages up to this number report.
CREATE FUNCTION {schema}.position() RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT greatest(0, number) FROM {schema}.newest());
END
$$;
