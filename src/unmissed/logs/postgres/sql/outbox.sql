-- Publishing: a row that becomes a message when its transaction has committed. It locks nothing, and notifies nobody.

CREATE TABLE {schema}.outbox (
    -- Ids ascend with the insertions: none is reserved for a connection.
    id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    draft bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, vacuum_truncate = off);
-- By transaction, since dead rows stay for as long as an old snapshot is held: a scan by id would walk over them.
CREATE INDEX outbox_by_xact ON {schema}.outbox (xact);

-- One row, which nodes set from their settings.
CREATE TABLE {schema}.limits (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    max_message_bytes integer NOT NULL
);
INSERT INTO {schema}.limits (max_message_bytes) VALUES (65536);

-- Publish a message when the present transaction commits: to the followers of ``topics`` and to ``users``, or, without
-- both, to everyone. With ``key``, it is the value of this key; ``append`` adds a piece to it, and ``deleted`` ends it.
-- ``fields`` are further fields of the message. Changes of one row have the order of their messages if each is published
-- after the change. Raises invalid_parameter_value for what no client could be sent.
CREATE FUNCTION {schema}.publish(
    type text, data jsonb DEFAULT NULL, topics text[] DEFAULT NULL, users text[] DEFAULT NULL, key text DEFAULT NULL,
    append boolean DEFAULT false, deleted boolean DEFAULT false, fields jsonb DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head text := '{"type":' || to_json(type)::text;
    tail text := '';
    keys text;
    size integer;
    most integer;
BEGIN
    PERFORM {schema}.check_type(type);
    IF data IS NOT NULL THEN
        tail := ',"data":' || data::text;
        PERFORM {schema}.check_json(data, tail);
    END IF;
    size := 0;
    IF topics IS NOT NULL OR users IS NOT NULL THEN
        SELECT * INTO topics, users, keys, size FROM {schema}.checked_audience(topics, users);
        IF topics IS NOT NULL THEN tail := tail || ',"topics":' || to_json(topics)::text; END IF;
    END IF;
    IF key IS NOT NULL THEN
        IF octet_length(key) NOT BETWEEN 1 AND 200 THEN
            RAISE invalid_parameter_value USING MESSAGE = 'a key is a text of 1 to 200 bytes, such as "cart": put others into data';
        END IF;
        IF append AND deleted THEN
            RAISE invalid_parameter_value USING MESSAGE = 'a message with deleted removes the value, and append adds to it: leave one out';
        END IF;
        tail := tail || ',"key":' || to_json(key)::text;
        IF append THEN tail := tail || ',"append":true'; END IF;
        IF deleted THEN tail := tail || ',"deleted":true'; END IF;
        keys := '{"keys":' || coalesce(keys, 'null') || ',"key":' || to_json(key)::text
            || ',"append":' || coalesce(append, false)::text || ',"deleted":' || coalesce(deleted, false)::text || '}';
    ELSIF append OR deleted THEN
        RAISE invalid_parameter_value USING MESSAGE = 'append and deleted are about the value of a key: add one, such as key => ''cart''';
    END IF;
    IF fields IS NOT NULL THEN
        PERFORM {schema}.check_fields(fields);
        IF fields <> '{}' THEN tail := tail || ',' || substr(fields::text, 2, length(fields::text) - 2); END IF;
    END IF;
    tail := tail || '}';
    SELECT max_message_bytes INTO most FROM {schema}.limits;
    IF octet_length(head) + octet_length(tail) + size > coalesce(most, 65536) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the message has %s bytes as jsonb, with its audience, and the limit is %s',
                octet_length(head) + octet_length(tail) + size, coalesce(most, 65536)),
            HINT = 'publish the id of a large object, or raise UNMISSED_MAX_MESSAGE_BYTES';
    END IF;
    INSERT INTO {schema}.outbox (draft)
    VALUES (convert_to(coalesce(keys, '') || E'\n' || head || E'\n' || tail, 'UTF8'));
END
$$;

CREATE FUNCTION {schema}.check_type(type text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF type IS NULL OR type = '' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'type must be a non-empty string such as ''order''';
    END IF;
    IF type IN ({reserved}) THEN
        RAISE invalid_parameter_value USING MESSAGE = format('the type %L is reserved for the protocol: choose another name', type);
    END IF;
END
$$;

-- Refuse what decoders of clients refuse: numbers that are infinite as a double, and deep nesting. ``text`` is the same JSON.
CREATE FUNCTION {schema}.check_json(data jsonb, text text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    -- A number has as many digits as its value needs, so a short text has neither.
    IF octet_length(text) < 200 THEN RETURN; END IF;
    IF jsonb_path_exists(data, 'strict $.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))') THEN
        RAISE invalid_parameter_value USING MESSAGE = 'the message cannot be sent as JSON: a number is larger than 1.8e308: send it as a string';
    END IF;
    IF length(text) - length(translate(text, '[{', '')) > 99
        AND jsonb_path_exists(data, 'strict $.**{99 to last} ? (@.type() == "array" || @.type() == "object")')
    THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'the message cannot be sent as JSON: it is nested deeper than 100 levels: flatten it, or send the inner part as a string';
    END IF;
END
$$;

CREATE FUNCTION {schema}.check_fields(fields jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    name text;
BEGIN
    IF jsonb_typeof(fields) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'fields are an object such as {"source": "shop"}';
    END IF;
    FOREACH name IN ARRAY ARRAY['sequence_number', 'timestamp'] LOOP
        IF fields ? name THEN
            RAISE invalid_parameter_value USING MESSAGE = format('%s is assigned by the server: leave it out, or keep your own inside data', name);
        END IF;
    END LOOP;
    FOREACH name IN ARRAY ARRAY['type', 'data', 'topics', 'users', 'key', 'append', 'deleted'] LOOP
        IF fields ? name THEN
            RAISE invalid_parameter_value USING MESSAGE = format('%s is an argument of publish(): leave it out of fields', name);
        END IF;
    END LOOP;
    IF fields ? 'ephemeral' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a message of a transaction is stored, so it is not ephemeral: leave that out of fields';
    END IF;
    PERFORM {schema}.check_json(fields, fields::text || fields::text);
END
$$;

-- Check and return topics and users, each once and in their order, their keys as JSON, and the bytes of all names.
CREATE FUNCTION {schema}.checked_audience(
    INOUT topics text[], INOUT users text[], OUT keys text, OUT size integer
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    name text;
BEGIN
    IF cardinality(topics) = 0 OR cardinality(users) = 0 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'topics and users are lists of at least one name: leave both out to publish to everyone';
    END IF;
    IF cardinality(topics) > 1000 OR cardinality(users) > 1000 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a message addresses at most 1000 topics and 1000 users: publish several messages';
    END IF;
    FOREACH name IN ARRAY coalesce(topics, '{}') LOOP
        IF name IS NULL OR length(name) > 200 OR name COLLATE "C" !~ '^[A-Za-z0-9._:/@+=-]+$' THEN
            RAISE invalid_parameter_value USING
                MESSAGE = 'a topic is 1 to 200 ASCII letters, digits and characters of . _ : / @ + = -, such as ''orders.42''';
        END IF;
    END LOOP;
    IF '' = ANY (users) OR array_position(users, NULL) IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = 'users must contain user ids, which are non-empty strings';
    END IF;
    IF cardinality(topics) > 1 THEN
        SELECT array_agg(t.name ORDER BY t.place) INTO topics
        FROM (SELECT n.name, min(n.place) AS place FROM unnest(topics) WITH ORDINALITY AS n (name, place) GROUP BY 1) AS t;
    END IF;
    IF cardinality(users) > 1 THEN users := ARRAY(SELECT DISTINCT unnest(users)); END IF;
    SELECT '[' || string_agg(to_json(k.key)::text, ',' ORDER BY k.place) || ']', sum(octet_length(k.key) - 1)::integer
    INTO keys, size
    FROM (
        SELECT '#' || t.name, t.place FROM unnest(topics) WITH ORDINALITY AS t (name, place)
        UNION ALL
        SELECT '@' || u.name, 1000 + u.place FROM unnest(users) WITH ORDINALITY AS u (name, place)
    ) AS k (key, place);
END
$$;
