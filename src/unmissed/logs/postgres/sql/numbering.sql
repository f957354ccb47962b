-- Giving numbers to what transactions have published, and to what a node publishes itself.
--
-- Plans are made once for a connection, and use the indexes: the tables may have been empty then. Planning would take longer
-- than all else, and the costs that follow from the settings would have each statement compiled.

-- Whether transactions have committed since the last batch. An index finds them, also while old snapshots keep many dead rows.
CREATE FUNCTION {schema}.is_waiting() RETURNS boolean LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off AS $$
DECLARE
    last pg_snapshot;
BEGIN
    SELECT seen INTO last FROM {schema}.newest();
    RETURN EXISTS (SELECT FROM {schema}.outbox WHERE xact >= coalesce(pg_snapshot_xmax(last), '0'))
        OR EXISTS (SELECT FROM {schema}.outbox WHERE xact = ANY (ARRAY(SELECT pg_snapshot_xip(last))));
END
$$;

-- The same, after waiting for it for some milliseconds. Waiting here costs a tenth of asking again and again: it needs no
-- snapshot for long, because each look takes a new one.
CREATE FUNCTION {schema}.await_rows(poll_ms integer, most_ms integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    ends_us bigint := {schema}.now_us() + most_ms * 1000;
BEGIN
    LOOP
        IF {schema}.is_waiting() THEN RETURN true; END IF;
        IF {schema}.now_us() >= ends_us THEN RETURN false; END IF;
        PERFORM pg_sleep(poll_ms / 1000.0);
    END LOOP;
END
$$;

-- What the log holds, for a node that has read up to ``seen_latest``. It writes nothing. ``in_doubt``: call work().
CREATE FUNCTION {schema}.look(
    seen_epoch text, seen_latest bigint, seen_ms bigint, seen_server text, caller_ms bigint,
    OUT in_doubt boolean, OUT wait_ms bigint, OUT epoch text, OUT first_number bigint, OUT oldest bigint,
    OUT latest bigint, OUT log_ms bigint, OUT server text
) LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    held {schema}.life;
    newest record;
BEGIN
    SELECT * INTO held FROM {schema}.life;
    SELECT * INTO newest FROM {schema}.newest();
    in_doubt := held.one IS NULL OR held.epoch = '' OR held.trusted <> held.server
        OR held.run <> {schema}.server_run()
        OR {schema}.has_lost(held, newest.number, seen_epoch, seen_latest, seen_ms);
    wait_ms := greatest(0, held.settle_until_ms - {schema}.now_us() / 1000);
    epoch := held.epoch;
    first_number := held.first_number;
    latest := newest.number;
    oldest := {schema}.oldest(held, latest, seen_epoch, seen_latest);
    log_ms := {schema}.log_time(caller_ms, newest.log_ms);
    server := held.trusted;
END
$$;

-- The lowest number that a node can still read, from the one after ``seen_latest`` on.
CREATE FUNCTION {schema}.oldest(life {schema}.life, latest bigint, seen_epoch text, seen_latest bigint)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    start bigint := CASE WHEN seen_epoch = life.epoch THEN seen_latest + 1 ELSE life.first_number END;
    lowest record;
BEGIN
    SELECT number, after INTO lowest FROM {schema}.messages WHERE number >= start ORDER BY number LIMIT 1;
    IF NOT FOUND THEN RETURN latest + 1; END IF;
    -- Numbers that were skipped are no hole.
    RETURN CASE WHEN lowest.after < start THEN start ELSE lowest.number END;
END
$$;

-- Give numbers to at most ``most_rows`` rows of the outbox, in the order of their insertion, and then to the publishes of
-- the caller, unless rows are left: what was committed before a publish began has a lower number. A publish has a key,
-- an owner, a fingerprint and a number of drafts. Nobody waits for a client while the lock is held.
CREATE FUNCTION {schema}.work(
    seen_epoch text, seen_latest bigint, seen_ms bigint, seen_server text, caller_ms bigint,
    new_epoch text, wanted_first bigint, settle_ms integer, most_rows integer,
    keep_ms bigint, retry_ms bigint, most_keys bigint, channel text,
    keys text[], owners text[], fingerprints text[], counts integer[], drafts bytea[],
    OUT wait_ms bigint, OUT epoch text, OUT first_number bigint, OUT oldest bigint, OUT latest bigint, OUT log_ms bigint,
    OUT server text, OUT rows_left boolean,
    -- For each publish: 1 if it is stored now, 0 if it was before, and 2 if its key finds no room.
    OUT outcomes integer[], OUT firsts bigint[], OUT stored_counts integer[], OUT times bigint[], OUT epochs text[],
    OUT stored_fingerprints text[], OUT room_ms bigint
) LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    held {schema}.life;
    life_now {schema}.life;
    newest record;
    now_ms bigint;
    now_us bigint;
    keys_ms bigint;
    start bigint;
    skipped_after bigint;
    moved bytea[];
    own bytea[];
    numbered pg_snapshot;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'the log needs transactions that are READ COMMITTED'
            USING HINT = 'ALTER ROLE ... SET default_transaction_isolation = ''read committed''';
    END IF;
    -- Other nodes must not see what a crash undoes, and one that has stopped must not hold up this one for long.
    PERFORM set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '1500', true)
    WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') OR current_setting('lock_timeout') <> '1500ms';
    SELECT * INTO held FROM {schema}.life FOR UPDATE;
    IF NOT FOUND THEN
        -- Somebody has emptied the tables.
        PERFORM {schema}.fill();
        SELECT * INTO held FROM {schema}.life FOR UPDATE;
    END IF;
    SELECT * INTO newest FROM {schema}.newest();
    life_now := {schema}.continued(
        held, newest.number, settle_ms, new_epoch, wanted_first, seen_epoch, seen_latest, seen_ms, seen_server
    );
    IF life_now.epoch <> held.epoch THEN
        newest.number := life_now.first_number - 1;
        newest.seen := NULL;
    END IF;
    now_us := {schema}.now_us();
    now_ms := now_us / 1000;
    log_ms := {schema}.log_time(caller_ms, newest.log_ms);
    keys_ms := {schema}.advance_clock(caller_ms, log_ms, now_ms);
    latest := newest.number;
    rows_left := false;
    wait_ms := greatest(0, life_now.settle_until_ms - now_ms);
    IF wait_ms = 0 THEN
        -- One statement, whose snapshot is that of the batch.
        WITH taken AS (
            DELETE FROM {schema}.outbox WHERE ctid = ANY (ARRAY(
                -- Without OFFSET, the index of the ids might be used, whose dead rows an old snapshot keeps.
                SELECT ctid FROM (
                    SELECT ctid, id FROM {schema}.outbox
                    WHERE xact >= coalesce(pg_snapshot_xmax(newest.seen), '0')
                        OR xact = ANY (ARRAY(SELECT pg_snapshot_xip(newest.seen)))
                    OFFSET 0
                ) AS visible ORDER BY id LIMIT most_rows
            )) RETURNING id, draft
        )
        SELECT array_agg(draft ORDER BY id), pg_current_snapshot() INTO moved, numbered FROM taken;
        rows_left := coalesce(cardinality(moved), 0) >= most_rows;
        -- Rows that are left are found by the snapshot before.
        IF rows_left THEN numbered := newest.seen; END IF;
        start := latest;
        IF life_now.skips AND (moved IS NOT NULL OR cardinality(drafts) > 0) THEN
            skipped_after := latest;
            start := greatest(now_us, latest + 1);
        END IF;
        IF cardinality(keys) > 0 AND NOT rows_left THEN
            SELECT * INTO outcomes, firsts, stored_counts, times, epochs, stored_fingerprints, own
            FROM {schema}.accepted(
                start + coalesce(cardinality(moved), 0), now_ms, keys_ms, life_now.epoch, keep_ms, retry_ms, most_keys,
                keys, owners, fingerprints, counts, drafts
            );
            SELECT until_ms - keys_ms INTO room_ms FROM {schema}.receipts
            WHERE 2 = ANY (outcomes) AND owner <> '' ORDER BY until_ms LIMIT 1;
        END IF;
        moved := coalesce(moved, '{}') || coalesce(own, '{}');
        IF cardinality(moved) > 0 THEN
            INSERT INTO {schema}.messages (number, unix_ms, log_ms, draft, after, seen)
            SELECT start + place, now_ms, work.log_ms, draft, CASE place WHEN 1 THEN skipped_after END,
                CASE place WHEN cardinality(moved) THEN numbered END
            FROM unnest(moved) WITH ORDINALITY AS new (draft, place);
            latest := start + cardinality(moved);
            life_now.skips := false;
            life_now.has_begun := true;
            IF channel <> '' THEN PERFORM pg_notify(channel, ''); END IF;
        END IF;
    END IF;
    IF life_now IS DISTINCT FROM held THEN
        UPDATE {schema}.life SET
            epoch = life_now.epoch, first_number = life_now.first_number, server = life_now.server, run = life_now.run,
            trusted = life_now.trusted, settle_until_ms = life_now.settle_until_ms, skips = life_now.skips, has_begun = life_now.has_begun;
    END IF;
    epoch := life_now.epoch;
    first_number := life_now.first_number;
    server := life_now.trusted;
    oldest := {schema}.oldest(life_now, latest, seen_epoch, seen_latest);
END
$$;

-- Decide about the publishes of a node, store the receipts of those that are new, and return their drafts in order.
-- No key occurs twice. The settings are those of work().
CREATE FUNCTION {schema}.accepted(
    start bigint, now_ms bigint, keys_ms bigint, epoch text, keep_ms bigint, retry_ms bigint, most_keys bigint,
    keys text[], owners text[], fingerprints text[], counts integer[], drafts bytea[],
    OUT outcomes integer[], OUT firsts bigint[], OUT stored_counts integer[], OUT times bigint[], OUT epochs text[],
    OUT stored_fingerprints text[], OUT new_drafts bytea[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    used bigint;
BEGIN
    SELECT o.keys INTO used FROM {schema}.owners AS o WHERE o.owner = '';
    WITH given AS (
        SELECT * FROM unnest(keys, owners, fingerprints, counts) WITH ORDINALITY
            AS w (key, owner, fingerprint, count, place)
    ), known AS (
        SELECT w.*, r.first_number, r.count AS stored_count, r.unix_ms, r.epoch, r.fingerprint AS stored_fingerprint,
            r.key IS NOT NULL AS is_known, coalesce(o.keys, 0) AS mine
        FROM given AS w
        LEFT JOIN {schema}.receipts AS r ON r.key = w.key AND r.until_ms > keys_ms
        LEFT JOIN {schema}.owners AS o ON o.owner = w.owner AND w.owner <> ''
    ), judged AS (
        SELECT k.*, CASE WHEN is_known THEN 0 WHEN owner = '' THEN 1
            WHEN {schema}.has_room(
                mine + count(*) FILTER (WHERE NOT is_known) OVER (PARTITION BY owner ORDER BY place) - 1,
                used + count(*) FILTER (WHERE NOT is_known AND owner <> '') OVER (ORDER BY place) - 1,
                most_keys
            ) THEN 1 ELSE 2 END AS outcome
        FROM known AS k
    ), placed AS (
        SELECT j.*, start + 1 + coalesce(sum(count) FILTER (WHERE outcome = 1) OVER (
            ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS first, sum(count) OVER (ORDER BY place) - count AS drafts_before
        FROM judged AS j
    ), remembered AS (
        INSERT INTO {schema}.receipts
        SELECT key, owner, keys_ms + CASE owner WHEN '' THEN retry_ms ELSE keep_ms END, first, count, now_ms,
            accepted.epoch, fingerprint
        FROM placed WHERE outcome = 1
        ON CONFLICT (key) DO UPDATE SET
            owner = excluded.owner, until_ms = excluded.until_ms, first_number = excluded.first_number,
            count = excluded.count, unix_ms = excluded.unix_ms, epoch = excluded.epoch, fingerprint = excluded.fingerprint
    ), counted AS (
        INSERT INTO {schema}.owners
        SELECT owner, count(*) FROM placed WHERE outcome = 1 AND owner <> '' GROUP BY owner
        UNION ALL
        SELECT '', count(*) + count(DISTINCT owner) FILTER (WHERE mine = 0) FROM placed
        WHERE outcome = 1 AND owner <> '' HAVING count(*) > 0
        ON CONFLICT (owner) DO UPDATE SET keys = owners.keys + excluded.keys
    )
    SELECT array_agg(outcome ORDER BY place),
        array_agg(CASE outcome WHEN 1 THEN first ELSE first_number END ORDER BY place),
        array_agg(CASE outcome WHEN 1 THEN count ELSE stored_count END ORDER BY place),
        array_agg(CASE outcome WHEN 1 THEN now_ms ELSE unix_ms END ORDER BY place),
        array_agg(CASE outcome WHEN 1 THEN accepted.epoch ELSE placed.epoch END ORDER BY place),
        array_agg(CASE outcome WHEN 1 THEN fingerprint ELSE stored_fingerprint END ORDER BY place)
    INTO outcomes, firsts, stored_counts, times, epochs, stored_fingerprints FROM placed;
    IF NOT (0 = ANY (outcomes) OR 2 = ANY (outcomes)) THEN
        new_drafts := drafts;
        RETURN;
    END IF;
    SELECT array_agg(draft ORDER BY draft_place) INTO new_drafts
    FROM unnest(drafts) WITH ORDINALITY AS d (draft, draft_place)
    JOIN (
        SELECT sum(count) OVER (ORDER BY place) AS through, count, outcome
        FROM unnest(counts, outcomes) WITH ORDINALITY AS w (count, outcome, place)
    ) AS w ON draft_place > through - count AND draft_place <= through
    WHERE outcome = 1;
END
$$;

-- The rule of has_room in receipts.py.
CREATE FUNCTION {schema}.has_room(mine bigint, used bigint, total bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT mine < total - used - CASE WHEN mine < greatest(1, total / 4096) THEN 0 ELSE total / 8 END
$$;

-- Return the time on the clock of the keys. The clocks are stored when a node starts, and every few seconds: a node that
-- starts later goes on from there.
CREATE FUNCTION {schema}.advance_clock(caller_ms bigint, now_log_ms bigint, now_ms bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    known {schema}.clock;
    now_keys_ms bigint;
BEGIN
    SELECT * INTO known FROM {schema}.clock;
    now_keys_ms := known.keys_ms + CASE WHEN caller_ms < 0 THEN 0 ELSE now_log_ms - known.log_ms END;
    IF caller_ms < 0 OR abs(now_ms - known.unix_ms) > 5000 THEN
        UPDATE {schema}.clock SET log_ms = now_log_ms, unix_ms = now_ms, keys_ms = now_keys_ms;
    END IF;
    RETURN now_keys_ms;
END
$$;

-- Forget receipts that are too old, a bounded number, and return whether more are left.
CREATE FUNCTION {schema}.forget_receipts(most integer) RETURNS boolean LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off AS $$
DECLARE
    now_keys_ms bigint;
    gone bigint;
BEGIN
    PERFORM FROM {schema}.life FOR UPDATE;
    SELECT keys_ms INTO now_keys_ms FROM {schema}.clock;
    WITH old AS (
        DELETE FROM {schema}.receipts WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}.receipts WHERE until_ms <= now_keys_ms ORDER BY until_ms LIMIT most
        )) RETURNING owner
    ), fewer AS (
        SELECT owner, count(*) AS keys FROM old WHERE owner <> '' GROUP BY owner
    ), reduced AS (
        UPDATE {schema}.owners AS o SET keys = o.keys - f.keys FROM fewer AS f WHERE o.owner = f.owner
        RETURNING f.keys + CASE WHEN o.keys <= 0 THEN 1 ELSE 0 END AS places
    ), summed AS (
        UPDATE {schema}.owners SET keys = keys - (SELECT sum(places) FROM reduced)
        WHERE owner = '' AND EXISTS (SELECT FROM reduced)
    )
    SELECT count(*) INTO gone FROM old;
    DELETE FROM {schema}.owners WHERE keys <= 0 AND owner <> '';
    RETURN gone >= most;
END
$$;
