-- The archive: what rules and keys retain longer than the tail, and what was lost. The messages of the tail are filed here
-- or lost as they are trimmed, by the node that leads. A node that has been replaced may still do the same: nothing is
-- done twice, and nobody waits for a client.

CREATE TABLE {schema}.archive (
    number bigint PRIMARY KEY,
    unix_ms bigint NOT NULL,
    log_ms bigint NOT NULL,
    -- The pattern of the rule, and the key of the audience that it counts messages for, as JSON. Both are empty for
    -- values without a rule.
    pattern text NOT NULL,
    bucket text NOT NULL,
    -- A digest of the audience and the key of a value, and NULL for a message without a key.
    identity bytea,
    -- Whether the message counts for the number of messages that its rule keeps: if it is no whole value.
    counted boolean NOT NULL,
    -- Whether a piece of this value is lost.
    partial boolean NOT NULL,
    draft bytea NOT NULL
);
CREATE INDEX archive_by_pattern ON {schema}.archive (pattern, number);
CREATE INDEX archive_by_bucket ON {schema}.archive (bucket, number) WHERE counted;
CREATE INDEX archive_by_identity ON {schema}.archive (identity) WHERE identity IS NOT NULL;

-- The bytes in the archive by rule, and the number up to which its messages are gone.
CREATE TABLE {schema}.shelves (
    pattern text PRIMARY KEY,
    bytes bigint NOT NULL,
    gone bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- The highest number of a lost message for each key of an audience, as JSON. '' is for messages for everyone, '*' for keys
-- that are not remembered and had no rule, and '?' for any client.
CREATE TABLE {schema}.lost (
    who text PRIMARY KEY,
    number bigint NOT NULL
) WITH (fillfactor = 50);

-- One row: through which number the tail is trimmed, and the patterns of the rules by which that was done.
CREATE TABLE {schema}.upkeep (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    trimmed bigint NOT NULL,
    rules text NOT NULL
) WITH (fillfactor = 50);

-- Where numbers were skipped, they do not say how many messages there are.
CREATE INDEX messages_after_skips ON {schema}.messages (number) WHERE after IS NOT NULL;

-- Begin again, at the beginning of an epoch, before its messages are deleted: file_tail() takes its locks in the same
-- order. What is archived has numbers of an earlier epoch then, and is removed later: it may be much.
CREATE FUNCTION {schema}.forget_archive() RETURNS void LANGUAGE sql AS $$
    DELETE FROM {schema}.lost;
    DELETE FROM {schema}.upkeep;
$$;

-- Let nobody else trim until the end of the transaction; false if somebody does.
CREATE FUNCTION {schema}.may_trim() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- A crash of the server may undo it: then all of it is done again.
    PERFORM set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '500', true);
    RETURN pg_try_advisory_xact_lock('{schema}.upkeep'::regclass::oid::bigint);
END
$$;

-- The tail as it is: its first and its last number, the time of its first message, the highest number that has ``keep``
-- messages above it, and the bytes of the messages above ``measured``.
CREATE FUNCTION {schema}.tail(
    keep bigint, measured bigint,
    OUT oldest bigint, OUT oldest_ms bigint, OUT latest bigint, OUT surplus_through bigint, OUT new_bytes bigint
) LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    top bigint;
    skip record;
BEGIN
    -- From there on: rows that were deleted may stay in the index for long.
    SELECT number, log_ms INTO oldest, oldest_ms FROM {schema}.messages
    WHERE number > {schema}.trimmed() ORDER BY number LIMIT 1;
    SELECT max(number) INTO latest FROM {schema}.messages WHERE number >= oldest;
    top := latest;
    FOR skip IN
        SELECT number, after FROM {schema}.messages WHERE after IS NOT NULL AND number >= oldest ORDER BY number DESC
    LOOP
        EXIT WHEN top - skip.number + 1 >= keep;
        keep := keep - (top - skip.number + 1);
        top := skip.after;
    END LOOP;
    surplus_through := top - keep;
    SELECT coalesce(sum(octet_length(draft)), 0) INTO new_bytes FROM {schema}.messages
    WHERE number > greatest(measured, oldest - 1);
END
$$;

-- The number through which the tail was trimmed, or, before that, the number before the first message.
CREATE FUNCTION {schema}.trimmed() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT trimmed FROM {schema}.upkeep),
        (SELECT first_number - 1 FROM {schema}.life),
        0
    )
$$;

-- The number through which messages below ``before`` may be missing from both the archive and the tail, or 0.
CREATE FUNCTION {schema}.gap_above_archive(before bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    lowest record;
BEGIN
    SELECT number, coalesce(after, number - 1) AS previous INTO lowest FROM {schema}.messages
    WHERE number > {schema}.trimmed() ORDER BY number LIMIT 1;
    RETURN CASE WHEN coalesce(lowest.previous, before - 1) > {schema}.trimmed()
        THEN coalesce(lowest.number, before) - 1 ELSE 0 END;
END
$$;

-- The highest number with at least ``most`` bytes above it, or NULL, and the bytes of the whole tail.
CREATE FUNCTION {schema}.measured_tail(most bigint, OUT surplus_through bigint, OUT bytes bigint)
LANGUAGE sql STABLE SET jit = off AS $$
    SELECT max(number) FILTER (WHERE above >= most), max(above + size) FROM (
        SELECT number, octet_length(draft) AS size,
            sum(octet_length(draft)) OVER (ORDER BY number DESC) - octet_length(draft) AS above
        FROM {schema}.messages WHERE number > {schema}.trimmed()
    ) AS sizes
$$;

-- What the archive decides by: the first line of a draft, and NULL if it has none.
CREATE FUNCTION {schema}.head_of(draft bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    -- Of most messages, only the first byte is read.
    SELECT CASE substring(draft FROM 1 FOR 1) WHEN '\x0a' THEN ''::bytea
        ELSE substring(draft FROM 1 FOR nullif(position('\x0a'::bytea IN draft), 0) - 1) END
$$;

-- How many messages there are with each first line of the draft, or only each first byte, in a range of the tail.
CREATE FUNCTION {schema}.counted_heads(above bigint, through bigint, only_bytes boolean)
RETURNS TABLE (head bytea, count bigint) LANGUAGE sql STABLE SET jit = off SET enable_seqscan = off AS $$
    SELECT CASE WHEN only_bytes THEN substring(draft FROM 1 FOR 1) ELSE {schema}.head_of(draft) END, count(*)
    FROM {schema}.messages WHERE number > greatest(above, {schema}.trimmed()) AND number <= through GROUP BY 1
$$;

-- The first messages of the tail that are too many or too old, by the first lines of their drafts: the number of the newest
-- with each, and how many there are. Each row also has the range of all of them, their bytes, and the highest number
-- before one of them that is missing.
CREATE FUNCTION {schema}.oldest_heads(last bigint, through bigint, through_ms bigint, most_rows integer, most_bytes bigint)
RETURNS TABLE (
    head bytea, newest bigint, count bigint, first_of_all bigint, last_of_all bigint, bytes bigint, missing bigint
) LANGUAGE sql STABLE SET jit = off SET enable_seqscan = off AS $$
    WITH rows AS (
        SELECT number, log_ms, draft, octet_length(draft) AS size, coalesce(after, number - 1) AS before,
            lag(number, 1, {schema}.trimmed()) OVER (ORDER BY number) AS previous,
            sum(octet_length(draft)) OVER (ORDER BY number) AS so_far
        FROM (
            SELECT * FROM {schema}.messages WHERE number > {schema}.trimmed() AND number < last
            ORDER BY number LIMIT most_rows
        ) AS first
    ), taken AS MATERIALIZED (
        SELECT * FROM rows WHERE (number <= through OR log_ms <= through_ms) AND so_far - size < most_bytes
    )
    SELECT {schema}.head_of(draft), max(number), count(*), all_of.* FROM taken, (
        SELECT min(number), max(number), sum(size)::bigint, max(number - 1) FILTER (WHERE previous < before) FROM taken
    ) AS all_of
    GROUP BY 1, 4, 5, 6, 7 ORDER BY 2 DESC
$$;

-- Move messages from the tail into the archive: those whose first line is one of ``heads`` and has a bucket. A kind is "v"
-- for a whole value, "a" for a piece, "d" for the end of a value, and "m" for a message without a key. ``who`` and
-- ``numbers`` say for whom the others are lost.
CREATE FUNCTION {schema}.file_tail(
    first bigint, through bigint, new_rules text,
    heads bytea[], kinds text[], identities bytea[], patterns text[], buckets text[], who text[], numbers bigint[]
) RETURNS boolean LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET enable_nestloop = off AS $$
BEGIN
    IF NOT {schema}.may_trim() THEN RETURN false; END IF;
    -- In a statement of its own, which sees what another node has trimmed before it released the lock.
    IF NOT EXISTS (SELECT FROM {schema}.messages WHERE number = first) THEN RETURN false; END IF;
    -- By other rules, it was another set of keys that are not remembered.
    PERFORM {schema}.mark_lost('{?}', ARRAY[l.number])
    FROM {schema}.lost AS l, {schema}.upkeep AS u WHERE l.who = '*' AND u.rules <> new_rules;
    PERFORM {schema}.mark_lost(who, numbers);
    INSERT INTO {schema}.upkeep AS u VALUES (true, through, new_rules)
    ON CONFLICT (one) DO UPDATE SET trimmed = through, rules = new_rules;
    IF cardinality(heads) = 0 THEN
        DELETE FROM {schema}.messages WHERE number BETWEEN first AND through;
    ELSE
        WITH fates AS (
            SELECT * FROM unnest(heads, kinds, identities, patterns, buckets) AS f (head, kind, identity, pattern, bucket)
        ), taken AS (
            DELETE FROM {schema}.messages WHERE number BETWEEN first AND through
            RETURNING number, unix_ms, log_ms, draft, {schema}.head_of(draft) AS head
        ), judged AS (
            SELECT *, max(number) FILTER (WHERE kind IN ('v', 'd')) OVER same AS replaced_through,
                max(number) FILTER (WHERE bucket IS NULL AND kind = 'a') OVER same AS lost_piece
            FROM taken JOIN fates USING (head) WINDOW same AS (PARTITION BY identity)
        ), replaced AS (
            DELETE FROM {schema}.archive
            WHERE identity = ANY (ARRAY(SELECT DISTINCT identity FROM judged WHERE kind IN ('v', 'd')))
            RETURNING pattern, octet_length(draft) AS size
        ), damaged AS (
            UPDATE {schema}.archive SET partial = true WHERE NOT counted AND NOT partial AND identity = ANY (ARRAY(
                SELECT DISTINCT identity FROM judged WHERE lost_piece IS NOT NULL AND replaced_through IS NULL
            ))
        ), filed AS (
            INSERT INTO {schema}.archive
            SELECT number, unix_ms, log_ms, pattern, bucket, identity, kind <> 'v',
                kind = 'v' AND coalesce(lost_piece > number, false), draft
            FROM judged
            WHERE bucket IS NOT NULL AND (identity IS NULL OR replaced_through IS NULL OR number >= replaced_through)
            RETURNING pattern, octet_length(draft) AS size
        )
        INSERT INTO {schema}.shelves AS s (pattern, bytes)
        SELECT pattern, sum(size) FROM (
            SELECT pattern, size FROM filed UNION ALL SELECT pattern, -size FROM replaced
        ) AS changes GROUP BY pattern
        ON CONFLICT (pattern) DO UPDATE SET bytes = s.bytes + excluded.bytes;
    END IF;
    RETURN true;
END
$$;

CREATE FUNCTION {schema}.mark_lost(new_who text[], new_numbers bigint[]) RETURNS void LANGUAGE sql
SET jit = off AS $$
    INSERT INTO {schema}.lost AS l SELECT * FROM unnest(new_who, new_numbers)
    ON CONFLICT (who) DO UPDATE SET number = excluded.number WHERE l.number < excluded.number
$$;

-- For whom a message is, as in the table of what is lost.
CREATE FUNCTION {schema}.recipients(draft bytea) RETURNS SETOF text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    head bytea := {schema}.head_of(draft);
    keys json;
BEGIN
    IF head IS NULL OR head = '' THEN
        RETURN NEXT CASE WHEN head IS NULL THEN '?' ELSE '' END;
        RETURN;
    END IF;
    -- As json, not as jsonb: there, no string may have the character U+0000.
    keys := convert_from(head, 'UTF8')::json;
    IF json_typeof(keys) = 'object' THEN keys := keys -> 'keys'; END IF;
    IF json_typeof(keys) = 'null' THEN
        RETURN NEXT '';
    ELSE
        RETURN QUERY SELECT value::text FROM json_array_elements(keys);
    END IF;
EXCEPTION WHEN OTHERS THEN
    -- Another program has changed the row.
    RETURN NEXT '?';
END
$$;

-- Remove from the archive what is of an earlier epoch, what is older than its rule allows, by the ages of patterns and that
-- of all others, of each of these buckets what is more than its limit, and the oldest of the largest shelf while there are
-- too many bytes: at most about ``most`` messages for each reason. Return whether more is left.
CREATE FUNCTION {schema}.shrink_archive(
    now_ms bigint, patterns text[], ages bigint[], other_age bigint, most_bytes bigint,
    buckets text[], limits bigint[], most integer
) RETURNS boolean LANGUAGE plpgsql SET jit = off SET enable_seqscan = off AS $$
DECLARE
    foreign_numbers bigint[];
    old bigint[];
    surplus bigint[];
    large bigint[];
    excess bigint;
BEGIN
    foreign_numbers := ARRAY(
        (SELECT number FROM {schema}.archive WHERE number < (SELECT first_number FROM {schema}.life) LIMIT most)
        UNION ALL (SELECT number FROM {schema}.archive WHERE number > {schema}.trimmed() LIMIT most)
    );
    old := ARRAY(
        SELECT a.number
        FROM {schema}.shelves AS s LEFT JOIN unnest(patterns, ages) AS given (pattern, age) USING (pattern),
        LATERAL (
            SELECT number, log_ms FROM {schema}.archive
            WHERE pattern = s.pattern AND number > s.gone ORDER BY number LIMIT most
        ) AS a
        WHERE a.log_ms <= now_ms - coalesce(age, other_age)
    );
    surplus := ARRAY(
        SELECT a.number FROM unnest(buckets, limits) AS b (bucket, keep), LATERAL (
            SELECT number FROM {schema}.archive WHERE bucket = b.bucket AND counted
            ORDER BY number DESC OFFSET b.keep LIMIT most
        ) AS a
    );
    SELECT sum(bytes) - most_bytes INTO excess FROM {schema}.shelves;
    large := ARRAY(
        SELECT number FROM (
            SELECT number, sum(size) OVER (ORDER BY number) - size AS before FROM (
                SELECT a.number, octet_length(a.draft) AS size FROM {schema}.archive AS a
                JOIN (SELECT pattern, gone FROM {schema}.shelves ORDER BY bytes DESC LIMIT 1) AS s USING (pattern)
                WHERE excess > 0 AND a.number > s.gone ORDER BY a.number LIMIT most
            ) AS oldest
        ) AS sizes WHERE before < excess
    );
    IF cardinality(foreign_numbers || old || surplus || large) = 0 OR NOT {schema}.may_trim() THEN RETURN false; END IF;
    PERFORM {schema}.drop_archived(foreign_numbers, is_loss => false);
    PERFORM {schema}.drop_archived(old || surplus || large, is_loss => true);
    RETURN greatest(cardinality(foreign_numbers), cardinality(old), cardinality(surplus), cardinality(large)) >= most;
END
$$;

-- Remove messages from the archive. If they are lost with it, a value is partial from then on if one of them is its piece.
CREATE FUNCTION {schema}.drop_archived(numbers bigint[], is_loss boolean) RETURNS void LANGUAGE plpgsql
SET jit = off SET enable_seqscan = off AS $$
DECLARE
    smaller text[];
    damaged bytea[];
BEGIN
    WITH gone AS (
        DELETE FROM {schema}.archive WHERE number = ANY (numbers)
        RETURNING number, pattern, identity, counted, draft
    ), marked AS (
        INSERT INTO {schema}.lost AS l
        SELECT who, max(number) FROM gone, {schema}.recipients(draft) AS who WHERE is_loss GROUP BY who
        ON CONFLICT (who) DO UPDATE SET number = excluded.number WHERE l.number < excluded.number
    ), reduced AS (
        UPDATE {schema}.shelves AS s SET bytes = s.bytes - g.bytes FROM (
            SELECT pattern, sum(octet_length(draft)) AS bytes FROM gone GROUP BY pattern
        ) AS g WHERE s.pattern = g.pattern
    )
    SELECT array_agg(DISTINCT pattern), array_agg(DISTINCT identity) FILTER (WHERE counted AND identity IS NOT NULL)
    INTO smaller, damaged FROM gone;
    UPDATE {schema}.archive SET partial = true WHERE is_loss AND identity = ANY (damaged) AND NOT counted AND NOT partial;
    UPDATE {schema}.shelves AS s SET gone = coalesce((
        SELECT number - 1 FROM {schema}.archive AS a
        WHERE a.pattern = s.pattern AND number > s.gone ORDER BY number LIMIT 1
    ), s.gone) WHERE pattern = ANY (smaller);
END
$$;

-- Let others of the marks count instead of these, unless these have become higher.
CREATE FUNCTION {schema}.replace_marks(old_who text[], old_numbers bigint[], new_who text[], new_numbers bigint[])
RETURNS void LANGUAGE plpgsql SET jit = off AS $$
BEGIN
    IF {schema}.may_trim() THEN
        DELETE FROM {schema}.lost AS l USING unnest(old_who, old_numbers) AS o (who, number)
        WHERE l.who = o.who AND l.number = o.number;
        PERFORM {schema}.mark_lost(new_who, new_numbers);
    END IF;
END
$$;
