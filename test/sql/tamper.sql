--
-- Someone who can write the table mints and moves nothing
--
SELECT session_id, session_token FROM session_create('alice', '{"n": 1, "role": "user"}', tenant_id => 'acme', auth => '{"amr": ["pwd"]}') \gset a_
SELECT session_id, session_token FROM session_create('alice', '{"n": 2, "role": "admin"}', tenant_id => 'acme', auth => '{"amr": ["pwd"]}') \gset b_
SELECT session_id, session_token FROM session_create('bob', '{"n": 3, "role": "admin"}') \gset c_

-- What a token gives after a change of its row: corrupt (SM004), nothing, or
-- the session
CREATE FUNCTION test.outcome(token text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM public.session_get(token);
	RETURN CASE WHEN FOUND THEN 'session' ELSE 'nothing' END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
-- the same after setting some columns, which is then undone
CREATE FUNCTION test.tampered(id uuid, token text, change text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
BEGIN
	BEGIN
		EXECUTE format('UPDATE public.user_sessions SET %s WHERE session_id = %L', change, id);
		outcome := test.outcome(token);
		RAISE 'undo';
	EXCEPTION WHEN raise_exception THEN
		RETURN outcome;
	END;
END
$$;
SELECT test.tampered(:'a_session_id', :'a_session_token', 'version = version');

-- Every bit of the seal and of the verifier
SELECT octet_length(sealed_data) AS size, octet_length(sealed_data) * 8 AS bits
FROM user_sessions WHERE session_id = :'a_session_id' \gset
SELECT outcome, count(*) = :bits AS every_bit
FROM generate_series(0, :bits - 1) AS bit,
	test.tampered(:'a_session_id', :'a_session_token',
		format('sealed_data = set_bit(sealed_data, %s, 1 - get_bit(sealed_data, %s))', bit, bit)) AS outcome
GROUP BY outcome;
SELECT outcome, count(*)
FROM generate_series(0, 255) AS bit,
	test.tampered(:'a_session_id', :'a_session_token',
		format('verifier = set_bit(verifier, %s, 1 - get_bit(verifier, %s))', bit, bit)) AS outcome
GROUP BY outcome;
-- every length of the seal but its own
SELECT outcome, count(*) = :size AS every_length
FROM generate_series(0, :size - 1) AS len,
	test.tampered(:'a_session_id', :'a_session_token', format('sealed_data = substr(sealed_data, 1, %s)', len)) AS outcome
GROUP BY outcome;
SELECT DISTINCT outcome
FROM generate_series(1, 100) AS more,
	test.tampered(:'a_session_id', :'a_session_token', format('sealed_data = sealed_data || decode(repeat(''00'', %s), ''hex'')', more)) AS outcome;
SELECT DISTINCT outcome
FROM generate_series(1, 64) AS len,
	test.tampered(:'a_session_id', :'a_session_token', format('verifier = decode(repeat(''00'', %s), ''hex'')', len)) AS outcome;
SELECT test.tampered(:'a_session_id', :'a_session_token', 'verifier = ''''');

-- Parts of another row, of the same user and of another
SELECT test.tampered(:'a_session_id', :'a_session_token', format('sealed_data = (SELECT sealed_data FROM public.user_sessions WHERE session_id = %L)', :'b_session_id')) AS seal_own,
	test.tampered(:'a_session_id', :'a_session_token', format('sealed_data = (SELECT sealed_data FROM public.user_sessions WHERE session_id = %L)', :'c_session_id')) AS seal_other,
	test.tampered(:'a_session_id', :'a_session_token', format('verifier = (SELECT verifier FROM public.user_sessions WHERE session_id = %L)', :'b_session_id')) AS verifier_own,
	test.tampered(:'a_session_id', :'b_session_token', format('verifier = (SELECT verifier FROM public.user_sessions WHERE session_id = %L)', :'b_session_id')) AS verifier_id;
-- a row under another id: neither token opens it
BEGIN;
UPDATE user_sessions SET (verifier, sealed_data) = (SELECT verifier, sealed_data FROM user_sessions WHERE session_id = :'c_session_id')
WHERE session_id = :'a_session_id';
SELECT test.outcome(:'a_session_token') AS a, test.outcome(:'c_session_token') AS c;
SELECT test.outcome('sm1_' || test.base64url(uuid_send(:'a_session_id') || substr(test.unbase64url(substr(:'c_session_token', 5)), 17))) AS c_secret_under_a;
ROLLBACK;
-- everything of the row but its id
BEGIN;
DELETE FROM user_sessions WHERE session_id = :'a_session_id';
UPDATE user_sessions SET session_id = :'a_session_id' WHERE session_id = :'c_session_id';
SELECT test.outcome(:'a_session_token') AS a, test.outcome(:'c_session_token') AS c;
SELECT test.outcome('sm1_' || test.base64url(uuid_send(:'a_session_id') || substr(test.unbase64url(substr(:'c_session_token', 5)), 17))) AS c_secret_under_a;
ROLLBACK;

-- Whose it is and how long it can last
SELECT change, test.tampered(:'a_session_id', :'a_session_token', change)
FROM unnest(ARRAY[
	$$user_id = 'bob'$$, $$user_id = 'alice '$$, $$user_id = ''$$, $$user_id = repeat('x', 513)$$, $$user_id = repeat('x', 100000)$$,
	$$tenant_id = 'globex'$$, $$tenant_id = NULL$$, $$tenant_id = ''$$, $$tenant_id = repeat('x', 513)$$,
	$$user_id = 'aliceacme', tenant_id = ''$$, $$user_id = 'alic', tenant_id = 'eacme'$$,
	$$absolute_expires_at = absolute_expires_at + interval '1 microsecond'$$,
	$$absolute_expires_at = 'infinity', expires_at = 'infinity'$$,
	$$absolute_expires_at = absolute_expires_at - interval '1 microsecond'$$,
	$$absolute_expires_at = '-infinity'$$,
	$$version = version + 1$$, $$version = 0$$, $$version = -1$$,
	$$created_at = created_at - interval '1 day'$$, $$authenticated_at = authenticated_at + interval '1 s'$$,
	$$previous_verifier = verifier, previous_valid_until = 'infinity', previous_key_id = verifier_key_id$$,
	$$verifier = decode(repeat('00', 32), 'hex'), previous_verifier = verifier, previous_valid_until = 'infinity', previous_key_id = verifier_key_id$$,
	$$previous_verifier = decode('00', 'hex'), previous_valid_until = 'infinity', previous_key_id = NULL$$,
	$$expires_at = 'infinity', last_seen_at = 'infinity'$$, $$last_seen_at = '-infinity'$$]) AS change;
-- under another key
SELECT key_id AS active FROM session_keys() WHERE state = 'active' \gset
SELECT session_key_generate() AS other \gset
SELECT test.tampered(:'a_session_id', :'a_session_token', 'key_id = ' || :other) AS other_seal_key,
	test.tampered(:'a_session_id', :'a_session_token', 'verifier_key_id = ' || :other) AS other_verifier_key,
	test.tampered(:'a_session_id', :'a_session_token', 'key_id = 12345') AS unknown_seal_key,
	test.tampered(:'a_session_id', :'a_session_token', 'verifier_key_id = 12345') AS unknown_verifier_key,
	test.tampered(:'a_session_id', :'a_session_token', 'key_id = 0, verifier_key_id = -1') AS impossible_keys;
-- another check value: the key is no longer taken for the right one
SELECT check_value AS check FROM session_keys WHERE state = 'active' \gset
UPDATE session_keys SET check_value = decode(repeat('00', 32), 'hex') WHERE state = 'active';
CALL test.error(format('SELECT session_get(%L)', :'a_session_token'));
SELECT available FROM session_keys() WHERE state = 'active';
CALL test.error($$SELECT session_create('alice')$$);
UPDATE session_keys SET check_value = :'check' WHERE state = 'active';
SELECT data FROM session_get(:'a_session_token');

-- The other functions that open a seal say the same, and change nothing.
UPDATE user_sessions SET sealed_data = set_bit(sealed_data, 400, 1 - get_bit(sealed_data, 400)) WHERE session_id = :'a_session_id';
CALL test.error(format('SELECT session_get(%L)', :'a_session_token'));
CALL test.error(format('SELECT session_update(%L, ''{}'')', :'a_session_token'));
CALL test.error(format('SELECT session_elevate(%L, ''{}'')', :'a_session_token'));
CALL test.error($$SELECT session_update_user('alice', '{"x": 1}')$$);
SET client_min_messages = error;	-- the warning names the session
SELECT s -> 'corrupt' AS corrupt, s -> 'data' AS data FROM jsonb_array_elements(session_export('alice')::jsonb -> 'sessions') AS s WHERE s ? 'corrupt';
RESET client_min_messages;
-- A list and a change of keys pass it over, with a warning that names it.
SET client_min_messages = error;
SELECT session_id = :'a_session_id' AS tampered, auth FROM session_list('alice') ORDER BY 1;
SELECT session_key_activate(:other);
SELECT session_reencrypt(), session_reencrypt();
SELECT session_key_activate(:active);
RESET client_min_messages;
SELECT session_id = :'a_session_id' AS tampered, session_event_severity(event) FROM session_events WHERE event = 'corrupt' LIMIT 1;
SELECT data, version FROM session_get(:'b_session_token');
-- but a session that cannot be read can be ended
SELECT session_bind(:'a_session_token');
SELECT status FROM session_refresh(:'a_session_token');
BEGIN;
SELECT session_invalidate_all('alice');
ROLLBACK;
SELECT session_invalidate(:'a_session_token');
SELECT count(*) FROM session_get(:'a_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
