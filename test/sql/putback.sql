--
-- Someone who can write the tables puts back what was there, or is elsewhere:
-- no token works better than before, unless the whole of a row is put back
--

-- what a replaced token is good for is not to change while the test runs
SET session_manager.rotation_grace = '1h';

CREATE TABLE test.token (name text, id uuid, token text);
CREATE TABLE test.before (name text, call text, outcome text);

-- A session that lives through everything, with what its row was at each stage
CREATE TABLE test.rows (LIKE user_sessions);
ALTER TABLE test.rows ADD COLUMN stage text;
CREATE FUNCTION test.keep(stage text) RETURNS void
LANGUAGE sql AS $$ INSERT INTO test.rows SELECT s.*, stage FROM public.user_sessions AS s WHERE user_id LIKE 'put%' $$;
SELECT session_id, session_token FROM session_create('put', '{"role": "admin"}', ttl => '10 hours', ip => '192.0.2.1', tenant_id => 'acme') \gset a1_
SELECT test.keep('created');
SELECT version FROM session_update(:'a1_session_token', '{"role": "user"}');
SELECT test.keep('updated');
SELECT session_token FROM session_refresh(:'a1_session_token', rotate => true, ttl => '20 hours', ip => '192.0.2.2') \gset a2_
SELECT test.keep('rotated');
SELECT count(*) FROM session_get(:'a2_session_token');
SELECT status FROM session_refresh(:'a2_session_token', ttl => '15 hours');
SELECT test.keep('used');
SELECT session_token FROM session_elevate(:'a2_session_token', '{"amr": ["otp"]}') \gset a3_
SELECT test.keep('elevated');
SELECT session_update_user('put', '{"role": "guest"}');
SELECT count(*) FROM session_get(:'a3_session_token');
SELECT status FROM session_refresh(:'a3_session_token', ttl => '800 min');
-- others: of the same user, of another one; one that is revoked, one that has
-- expired, and one whose replaced token is past its grace
SELECT session_id, session_token FROM session_create('put', '{"role": "other"}', tenant_id => 'acme') \gset b_
SELECT session_id, session_token FROM session_create('put other', '{"role": "root"}') \gset c_
SELECT session_id, session_token FROM session_create('put revoked') \gset r_
SELECT session_id, session_token FROM session_create('put expired') \gset e_
SELECT session_id, session_token FROM session_create('put replaced') \gset p1_
SELECT session_id, session_token FROM session_create('put staff', idle_timeout => '1 hour') \gset s_
SELECT session_id, session_token FROM session_create('put acted', '{"role": "acted"}', idle_timeout => '2 hours', actor_token => :'s_session_token') \gset i_
SET session_manager.rotation_grace = 0;
SELECT session_token FROM session_refresh(:'p1_session_token', rotate => true) \gset p2_
SET session_manager.rotation_grace = '1h';
SELECT test.keep('late');
SELECT status FROM session_refresh(:'p2_session_token');
SELECT session_invalidate(:'r_session_token');
SELECT status FROM session_refresh(:'e_session_token', ttl => '1 microsecond');
SELECT test.keep('now');
INSERT INTO test.token VALUES ('a1', :'a1_session_id', :'a1_session_token'), ('a2', :'a1_session_id', :'a2_session_token'), ('a3', :'a1_session_id', :'a3_session_token'),
	('b', :'b_session_id', :'b_session_token'), ('c', :'c_session_id', :'c_session_token'), ('r', :'r_session_id', :'r_session_token'),
	('e', :'e_session_id', :'e_session_token'), ('p1', :'p1_session_id', :'p1_session_token'), ('p2', :'p1_session_id', :'p2_session_token'),
	('s', :'s_session_id', :'s_session_token'), ('i', :'i_session_id', :'i_session_token');

-- What a token is good for
CREATE FUNCTION test.good_for(token text) RETURNS TABLE (call text, outcome text)
LANGUAGE plpgsql AS $$
BEGIN
	FOR call IN SELECT unnest(ARRAY[
		'SELECT (user_id, tenant_id, data, auth, created_at, authenticated_at, expires_at, absolute_expires_at, actor_id)::text FROM public.session_get(%L)',
		'SELECT data::text FROM public.session_update(%L, ''{"x": 1}'')',
		'SELECT status || round(extract(epoch FROM expires_at - clock_timestamp()) / 6000) FROM public.session_refresh(%L)',
		'SELECT status FROM public.session_refresh(%L, rotate => true)',
		'SELECT status FROM public.session_elevate(%L, ''{}'')',
		'SELECT status FROM public.session_switch_tenant(%L, ''x'')',
		'SELECT nullif(public.session_bind(%L), false)::text || public.session_user_id()',
		'SELECT public.session_invalidate(%L)',
		'SELECT nullif(public.session_status(%L), ''unknown'')'])
	LOOP
		BEGIN
			EXECUTE format(call, token) INTO outcome;
			RAISE SQLSTATE 'OK000';
		EXCEPTION WHEN SQLSTATE 'OK000' THEN
			IF outcome NOT IN ('ended', 'expired', 'revoked', 'actor_ended') THEN
				RETURN NEXT;
			END IF;
		WHEN SQLSTATE 'SM003' OR SQLSTATE 'SM004' THEN
			NULL;
		END;
	END LOOP;
END
$$;
-- a replay ends its session, which a worker does even if it is undone: not while
-- the row is locked
BEGIN;
SELECT count(*) FROM (SELECT FROM user_sessions WHERE user_id = 'put replaced' FOR NO KEY UPDATE) AS locked;
INSERT INTO test.before SELECT name, call, outcome FROM test.token, test.good_for(token);
COMMIT;
SELECT name, count(*) FROM test.before GROUP BY name ORDER BY name;

-- What each token is good for after a change of a row, if it is not what it
-- was before; the change is undone.
CREATE FUNCTION test.gained(change text, whole text, target uuid = NULL) RETURNS TABLE (name text, call text, outcome text)
LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
	is_whole boolean;
BEGIN
	EXECUTE change;
	EXECUTE whole INTO is_whole;
	IF NOT is_whole THEN
		SELECT jsonb_agg(jsonb_build_array(t.name, g.call, g.outcome)) INTO result
		FROM test.token AS t, test.good_for(t.token) AS g
		WHERE (target IS NULL OR t.id = target)
			AND NOT EXISTS (SELECT FROM test.before AS b WHERE (b.name, b.call, b.outcome) = (t.name, g.call, g.outcome));
	END IF;
	RAISE SQLSTATE 'OK000';
EXCEPTION WHEN SQLSTATE 'OK000' THEN
	RETURN QUERY SELECT r ->> 0, r ->> 1, r ->> 2 FROM jsonb_array_elements(result) AS r;
WHEN unique_violation OR not_null_violation THEN
	NULL;
END
$$;
-- all changes of a row to another: one and two of the columns that differ,
-- and all but one and but two
CREATE FUNCTION test.changes(target test.rows, source test.rows) RETURNS TABLE (change text, whole text, id uuid)
LANGUAGE sql AS $$
	WITH c AS (
		SELECT attname::text AS name FROM pg_attribute
		WHERE attrelid = 'public.user_sessions'::regclass AND attnum > 0 AND attname NOT IN ('session_id', 'last_seen_at', 'sweep_at', 'user_agent', 'revoked_reason')
			AND to_jsonb(target) -> attname::text IS DISTINCT FROM to_jsonb(source) -> attname::text
	), few AS (
		SELECT ARRAY[x.name, y.name] AS names FROM c AS x JOIN c AS y ON x.name <= y.name
	), sets AS (
		SELECT names FROM few
		UNION
		SELECT ARRAY(SELECT name FROM c WHERE name <> ALL (names)) FROM few
	)
	SELECT format('UPDATE public.user_sessions AS u SET %s FROM test.rows AS r WHERE u.session_id = %L AND r.session_id = %L AND r.stage = %L',
		(SELECT string_agg(DISTINCT format('%I = r.%1$I', n), ', ') FROM unnest(names) AS n), target.session_id, source.session_id, source.stage),
		-- put back whole, a row is what it was, whether its seal then opens or not
		format('SELECT u.session_id = r.session_id AND to_jsonb(u) - x = to_jsonb(r) - ''stage''::text - x
			FROM public.user_sessions AS u, test.rows AS r, (VALUES (''{sealed_data,last_seen_at,sweep_at,user_agent,revoked_reason}''::text[])) AS v(x)
			WHERE u.session_id = %L AND r.session_id = %L AND r.stage = %L', target.session_id, source.session_id, source.stage), target.session_id
	FROM sets WHERE cardinality(names) > 0
$$;
SET client_min_messages = error;
CREATE TABLE test.changes AS
SELECT c.* FROM test.rows AS target, test.rows AS source, test.changes(target, source) AS c
WHERE target.stage = 'now' AND source <> target
	AND (source.session_id = target.session_id
		-- another session's row, into the one that has been through everything
		OR target.session_id IN (:'a1_session_id', :'i_session_id') AND source.stage = 'now');
SELECT count(*) > 1000 AS many FROM test.changes;
SELECT change, g.* FROM test.changes, test.gained(change, whole, id) AS g WHERE test.is_tried(change) ORDER BY 1, 2, 3;

-- what nobody needs an old row for
SELECT change, g.*
FROM unnest(ARRAY[
	$$previous_valid_until = 'infinity'$$,
	$$previous_valid_until = 'infinity', rotated_at = clock_timestamp()$$,
	$$previous_valid_until = 'infinity', rotated_at = 'infinity'$$,
	$$verifier = previous_verifier, previous_verifier = verifier$$,
	$$verifier = previous_verifier, previous_verifier = verifier, verifier_key_id = previous_key_id, previous_key_id = verifier_key_id$$,
	$$verifier = previous_verifier$$,
	$$previous_verifier = NULL, rotated_at = NULL$$,
	$$successor_used_at = NULL$$,
	$$successor_used_at = NULL, rotated_at = rotated_at - interval '1 day', previous_valid_until = rotated_at - interval '1 day'$$,
	$$expires_at = 'infinity'$$,
	$$expires_at = absolute_expires_at$$,
	$$absolute_expires_at = 'infinity', expires_at = 'infinity'$$,
	$$ttl = '1 year'$$,
	$$idle_timeout = NULL$$,
	$$idle_timeout = '1 year'$$,
	$$actor_id = NULL$$,
	$$actor_session_id = NULL$$,
	$$actor_id = NULL, actor_session_id = NULL$$,
	$$actor_id = 'put', actor_session_id = session_id$$,
	$$revoked_at = NULL, revoked_reason = NULL$$,
	$$revoked_at = NULL, revoked_reason = NULL, expires_at = 'infinity', state_mac = '\x00000000000000000000000000000000'$$,
	$$state_mac = substr(verifier, 1, 16)$$,
	$$state_mac = NULL$$]) AS change,
	test.gained('UPDATE user_sessions SET ' || change, 'SELECT false') AS g ORDER BY 1, 2, 3;
-- what does not fit is not made good by the next write
SELECT change, after, g.*
FROM unnest(ARRAY[
	$$previous_valid_until = 'infinity', rotated_at = 'infinity'$$,
	$$verifier = previous_verifier, previous_verifier = verifier$$,
	$$expires_at = 'infinity'$$,
	$$actor_id = NULL, actor_session_id = NULL$$,
	$$idle_timeout = NULL$$,
	$$revoked_at = NULL$$]) AS change,
	unnest(ARRAY[
	$$SELECT session_update_user('put', '{}')$$,
	$$SELECT session_cleanup()$$]) AS after,
	test.gained(format('UPDATE user_sessions SET sweep_at = now(), %s; %s', change, after), 'SELECT false') AS g
WHERE g.call NOT LIKE '%session_get%' AND g.call NOT LIKE '%session_update%' ORDER BY 1, 2, 3, 4;
RESET client_min_messages;
-- a whole row does come back
BEGIN;
UPDATE user_sessions AS u SET revoked_at = NULL, revoked_reason = NULL, state_mac = r.state_mac FROM test.rows AS r
WHERE u.session_id = :'r_session_id' AND r.session_id = u.session_id AND r.stage = 'late';
SELECT session_status(:'r_session_token');
ROLLBACK;

-- A key that was revoked stays so.
CREATE FUNCTION test.outcome_of(call text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT key_id AS active FROM session_keys() WHERE state = 'active' \gset
SELECT session_key_generate() AS other \gset
SELECT session_key_activate(:other);
SELECT session_token FROM session_create('put other') \gset k_
BEGIN;
SELECT session_key_revoke(:other);
SELECT check_value FROM session_keys WHERE key_id = :other;
SELECT test.outcome_of(format($$UPDATE session_keys SET state = 'active', revoked_at = NULL WHERE key_id = %s$$, :other));
ALTER TABLE session_keys DROP CONSTRAINT session_keys_revoked;
UPDATE session_keys SET state = 'active', revoked_at = NULL WHERE key_id = :other;
SELECT test.outcome_of(format('SELECT session_get(%L)', :'k_session_token'));
SELECT test.outcome_of($$SELECT session_create('put other')$$);
UPDATE session_keys SET check_value = decode(repeat('00', 32), 'hex') WHERE key_id = :other;
SELECT test.outcome_of(format('SELECT session_get(%L)', :'k_session_token'));
UPDATE session_keys AS k SET check_value = o.check_value FROM session_keys AS o WHERE k.key_id = :other AND o.key_id = :active;
SELECT test.outcome_of(format('SELECT session_get(%L)', :'k_session_token'));
ROLLBACK;
SELECT session_key_activate(:active);

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
DROP TABLE test.before, test.changes, test.token;
DROP FUNCTION test.changes(test.rows, test.rows);
DROP FUNCTION test.keep(text);
DROP TABLE test.rows;
