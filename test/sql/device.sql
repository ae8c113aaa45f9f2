--
-- Sessions that are bound to a device: bind, prove, refuse
--
SET TimeZone = 'UTC';

CREATE TABLE test.device_keys (name text, key jsonb);
INSERT INTO test.device_keys VALUES
	-- RFC 7517, appendix A.1, and RFC 7638, section 3.1, whose thumbprint is in there
	('ec', '{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "1"}'),
	('rsa', '{"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}');
SELECT key AS ec FROM test.device_keys WHERE name = 'ec' \gset
SELECT key AS rsa FROM test.device_keys WHERE name = 'rsa' \gset

-- What session_get says of a token and what comes behind it.
CREATE FUNCTION test.gets(token text) RETURNS text
LANGUAGE sql AS $$
	SELECT coalesce((SELECT 'live' FROM session_get(token)), 'none');
$$;

-- The grace in which a session that has just been bound needs no proof is over.
CREATE FUNCTION test.end_unproved(token text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	SET session_manager.device_proof_lifetime = 1;
	WHILE clock_timestamp() < (SELECT bound_at + interval '1 s' FROM session_device(token)) LOOP
		PERFORM pg_sleep(0.02);
	END LOOP;
END;
$$;

--
-- Keys
--
SELECT * FROM session_create('kim') \gset k_
SELECT session_device_challenge(:'k_session_token') AS challenge \gset k_
SELECT :'k_challenge' ~ '^sc1_[A-Za-z0-9_-]{36}$' AS formed;
DO $$
DECLARE
	bad jsonb;
BEGIN
	FOREACH bad IN ARRAY ARRAY[
		'{}', '{"kty": "oct", "k": "AAAA"}', '{"kty": 1}', '{"kty": "EC"}', '{"kty": "EC", "crv": "P-384"}',
		(SELECT key - 'x' FROM test.device_keys WHERE name = 'ec'),
		(SELECT key || '{"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D"}' FROM test.device_keys WHERE name = 'ec'),
		(SELECT key || '{"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D5"}' FROM test.device_keys WHERE name = 'ec'),
		(SELECT key || '{"y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM="}' FROM test.device_keys WHERE name = 'ec'),
		(SELECT key || '{"d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}' FROM test.device_keys WHERE name = 'ec'),
		(SELECT key || '{"n": "AQAB"}' FROM test.device_keys WHERE name = 'rsa'),
		(SELECT key || jsonb_build_object('n', 'AA' || substr(key ->> 'n', 3)) FROM test.device_keys WHERE name = 'rsa'),
		(SELECT key || jsonb_build_object('n', repeat(key ->> 'n', 3)) FROM test.device_keys WHERE name = 'rsa'),
		(SELECT key || '{"e": ""}' FROM test.device_keys WHERE name = 'rsa'),
		(SELECT key || '{"e": "AAEAAQ"}' FROM test.device_keys WHERE name = 'rsa'),
		'[]']::jsonb[]
	LOOP
		BEGIN
			PERFORM session_bind_device(s.session_token, bad, session_device_challenge(s.session_token))
			FROM session_create('kim') s;
			RAISE NOTICE 'bound to %', left(bad::text, 40);
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '% % %', SQLSTATE, SQLERRM, left(bad::text, 40);
		END;
	END LOOP;
END;
$$;
SELECT session_bind_device(:'k_session_token', NULL, :'k_challenge');	-- fails
SELECT session_bind_device(:'k_session_token', :'ec', NULL);	-- fails
SELECT session_bind_device(NULL, :'ec', :'k_challenge');
SELECT session_bind_device('sm1_', :'ec', :'k_challenge');
SELECT session_device_challenge(NULL) IS NULL AND session_device_challenge('no token') IS NULL AS none;

--
-- Bind
--
SELECT count(*) FROM session_device(:'k_session_token');	-- not yet
SELECT * FROM session_prove_device(:'k_session_token', :'k_challenge');
SELECT session_device_report(:'k_session_token', true, 'quota_exceeded');
SELECT * FROM session_create('lou') \gset l_
SELECT session_device_challenge(:'l_session_token') AS challenge \gset l_
-- challenges: another session's, none, a changed one, one of later
SELECT status FROM session_bind_device(:'k_session_token', :'ec', :'l_challenge');
SELECT status FROM session_bind_device(:'k_session_token', :'ec', '');
SELECT status FROM session_bind_device(:'k_session_token', :'ec', translate(:'k_challenge', 'AB', 'BA') || '');
SELECT status FROM session_bind_device(:'k_session_token', :'ec', replace(:'k_challenge', 'sc1_', 'sp1_'));
SELECT * FROM session_bind_device(:'k_session_token', :'ec', :'k_challenge', '192.0.2.1', 'Browser') \gset b_
SELECT :'b_status' AS status, :'b_session_id' = :'k_session_id' AS same_id, :'b_user_id' AS user_id,
	:'b_session_token' <> :'k_session_token' AS new_token, :'b_thumbprint' AS thumbprint,
	:'b_proof' ~ '^sp1_[A-Za-z0-9_-]{36}$' AS formed,
	round(extract(epoch FROM :'b_proof_expires_at' - clock_timestamp())) AS seconds;
SELECT device_thumbprint, device_bound_at IS NOT NULL AS bound, device_proved_at < device_bound_at AS proved
FROM session_list('kim') WHERE session_id = :'k_session_id';
SELECT user_id, binding_id = :'b_binding_id' AS same, key, thumbprint = :'b_thumbprint' AS same_thumbprint
FROM session_device(:'b_session_token');
-- once, whatever is tried
SELECT session_device_challenge(:'b_session_token') AS next \gset b_
SELECT status, proof FROM session_bind_device(:'b_session_token', :'rsa', :'b_next');
SELECT status, proof FROM session_bind_device(:'b_session_token', :'ec', :'k_challenge');
SELECT thumbprint = :'b_thumbprint' AS unchanged FROM session_device(:'b_session_token');
-- the other kind of key
SELECT status, thumbprint FROM session_bind_device(:'l_session_token', :'rsa', :'l_challenge') \gset lb_
SELECT :'lb_status' AS status, :'lb_thumbprint' AS thumbprint;	-- that of RFC 7638, section 3.1
-- a replaced token binds nothing
SELECT * FROM session_create('mia') \gset m_
SELECT session_token AS second FROM session_refresh(:'m_session_token', rotate => true) \gset m_
SELECT status FROM session_bind_device(:'m_session_token', :'ec', session_device_challenge(:'m_session_token'));
SELECT session_invalidate(:'m_second');
SELECT status FROM session_bind_device(:'m_second', :'ec', :'l_challenge');	-- after the end
SELECT session_device_challenge(:'m_second') IS NULL AS none;

--
-- With and without a proof
--
-- for a while without: requests are under way
SELECT test.gets(:'b_session_token'), test.gets(:'k_session_token') AS previous, session_status(:'b_session_token');
SELECT test.gets(:'b_session_token' || '.'), test.gets(:'b_session_token' || '.' || 'sp1_');
SELECT session_get_json(token)::jsonb -> 'device_proved' AS proved
FROM unnest(ARRAY[:'b_session_token', :'b_session_token' || '.sp1_' || repeat('A', 36), :'b_session_token' || '.' || :'b_proof']) AS token;
SELECT test.end_unproved(:'b_session_token');
SELECT test.gets(:'b_session_token') AS without, test.gets(:'b_session_token' || '.') AS empty,
	test.gets(:'b_session_token' || '.' || :'b_proof') AS with, session_status(:'b_session_token'),
	session_status(:'b_session_token' || '.' || :'b_proof') AS status_with;
SELECT test.gets(session_token_digest(:'b_session_token' || '.' || :'b_proof')) AS digest_form,
	session_token_digest(:'b_session_token' || '.' || :'b_proof') = session_token_digest(:'b_session_token') || '.' || :'b_proof' AS keeps,
	session_token_bucket(:'b_session_token' || '.' || :'b_proof') = session_bucket('kim') AS bucket;
SELECT device_proved_at IS NOT NULL AS bound FROM session_get(:'b_session_token' || '.' || :'b_proof');
SELECT (session_get_json(:'b_session_token' || '.' || :'b_proof')::jsonb ->> 'device_proved_at')::bigint > 0 AS bound,
	session_get_json(:'b_session_token') IS NULL AS without;
-- the proof of another binding, of another time, no proof at all, a challenge
SELECT b.session_token AS token, proof FROM session_create('noa') AS s,
	LATERAL session_bind_device(s.session_token, :'ec', session_device_challenge(s.session_token)) AS b \gset n_
SELECT name, test.gets(:'b_session_token' || '.' || proof)
FROM (VALUES (1, 'right', :'b_proof'),
	(2, 'of another binding with the same key', :'n_proof'),
	(3, 'of another time', test.change_char(:'b_proof', 17)),
	(4, 'of another key id', test.change_char(:'b_proof', 6)),
	(5, 'another MAC', test.change_char(:'b_proof', 40)),
	(6, 'too short', left(:'b_proof', 39)),
	(7, 'too long', :'b_proof' || 'A'),
	(8, 'another prefix', 'sq1_' || substr(:'b_proof', 5)),
	(9, 'a challenge', :'b_next'),
	(10, 'a challenge called a proof', 'sp1_' || substr(:'b_next', 5)),
	(11, 'twice', :'b_proof' || '.' || :'b_proof'),
	(12, 'zeroes', 'sp1_' || repeat('A', 36)),
	(13, 'ones', 'sp1_' || repeat('_', 36)),
	(14, 'with padding', left(:'b_proof', 39) || '='),
	(15, 'in capitals', upper(:'b_proof'))) AS proofs (n, name, proof)
ORDER BY n;
-- what is behind a dot and a token of another session is nothing to that
SELECT test.gets(:'n_token' || '.' || :'b_proof') AS in_grace;
SELECT session_token AS token FROM session_create('ola') \gset o_
SELECT test.gets(:'o_token' || '.' || :'b_proof') AS not_bound, test.gets(:'o_token' || '.rubbish') AS rubbish,
	test.gets(:'o_token' || :'b_proof') AS without_dot;

-- every function that uses a session
SELECT session_bind(:'b_session_token') AS without, session_bind(:'b_session_token' || '.' || :'b_proof') AS with, session_user_id();
SELECT (SELECT version FROM session_update(:'b_session_token', '{"a": 1}')) AS without,
	(SELECT version FROM session_update(:'b_session_token' || '.' || :'b_proof', '{"a": 1}')) AS with;
SELECT session_assertion(:'b_session_token', 'x') IS NULL AS without,
	session_assertion(:'b_session_token' || '.' || :'b_proof', 'x') IS NULL AS with;
SELECT status, user_id, session_token FROM session_refresh(:'b_session_token', rotate => true);
SELECT status, user_id, session_token FROM session_elevate(:'b_session_token', '{}');
SELECT status, user_id, session_token FROM session_switch_tenant(:'b_session_token', 'acme');
SELECT (SELECT count(*) FROM session_list('kim', :'b_session_token') WHERE is_current) AS without,
	(SELECT count(*) FROM session_list('kim', :'b_session_token' || '.' || :'b_proof') WHERE is_current) AS with;
SELECT session_create('pat', actor_token => :'b_session_token');	-- fails
SELECT session_create('pat', actor_token => :'b_session_token' || '.' || :'b_proof') IS NOT NULL AS with;

-- what the holder of the token alone has begun as another user does not go on without the device
SELECT session_token AS token FROM session_create('pat', actor_token => :'b_session_token' || '.' || :'b_proof') \gset i_
SELECT test.gets(:'i_token') AS without, test.gets(:'i_token' || '.' || :'b_proof') AS with, test.gets(:'i_token' || '.' || :'n_proof') AS other,
	session_status(:'i_token'), (SELECT status FROM session_refresh(:'i_token', true)) AS refreshed, session_bind(:'i_token');
SELECT (session_get_json(:'i_token' || '.' || :'b_proof')::jsonb -> 'device_proved')::text AS proved;

-- rotation, elevation and another tenant: the proof goes along
SELECT status, session_token AS token FROM session_refresh(:'b_session_token' || '.' || :'b_proof', rotate => true) \gset r_
SELECT :'r_status' AS status, test.gets(:'r_token' || '.' || :'b_proof'), test.gets(:'r_token') AS without;
SELECT status, session_token AS token FROM session_elevate(:'r_token' || '.' || :'b_proof', '{"method": "otp"}') \gset r_
SELECT :'r_status' AS status, test.gets(:'r_token' || '.' || :'b_proof'), test.gets(:'r_token') AS without;
SELECT status, session_token AS token, session_id FROM session_switch_tenant(:'r_token' || '.' || :'b_proof', 'acme') \gset r_
SELECT :'r_status' AS status, test.gets(:'r_token' || '.' || :'b_proof'), test.gets(:'r_token') AS without,
	(SELECT binding_id = :'b_binding_id' AND thumbprint = :'b_thumbprint' FROM session_device(:'r_token')) AS same_device,
	:'r_session_id' <> :'k_session_id' AS new_session;

--
-- Prove
--
SET session_manager.device_proof_lifetime = 300;
SELECT session_device_challenge(:'r_token') AS c1 \gset
SELECT session_device_challenge(:'r_token') AS c2 \gset
SELECT session_device_challenge(:'n_token') AS other \gset
SELECT status, proof FROM session_prove_device(:'r_token', :'other');
SELECT status, proof FROM session_prove_device(:'r_token', :'k_challenge');
SELECT status, proof FROM session_prove_device(:'r_token', 'sc1_' || repeat('A', 36));
SELECT status, proof FROM session_prove_device(:'r_token', :'c2') \gset p_
SELECT :'p_status' AS status, :'p_proof' <> :'b_proof' AS new_proof;
SELECT status, proof FROM session_prove_device(:'r_token', :'c2');	-- once
SELECT status, proof FROM session_prove_device(:'r_token', :'c1');	-- and none of before
SET session_manager.device_proof_lifetime = 1;
SELECT test.gets(:'r_token' || '.' || :'p_proof') AS with, test.gets(:'r_token') AS without;
-- an old challenge
SELECT session_device_challenge(:'r_token') AS c3 \gset
SELECT pg_sleep(2.1);
SELECT status, proof FROM session_prove_device(:'r_token', :'c3');
-- a proof that expires
SELECT status, proof FROM session_prove_device(:'r_token', session_device_challenge(:'r_token')) \gset q_
SELECT test.gets(:'r_token' || '.' || :'q_proof') AS fresh;
SELECT pg_sleep(1.1);
SELECT test.gets(:'r_token' || '.' || :'q_proof') AS expired, test.gets(:'r_token' || '.' || :'p_proof') AS of_longer;
-- the proof counts with a replaced token as long as that works
SELECT session_token AS token2 FROM session_refresh(:'r_token' || '.' || :'p_proof', rotate => true) \gset r_
SELECT test.gets(:'r_token' || '.' || :'p_proof') AS previous, test.gets(:'r_token') AS previous_without;
SELECT status, user_id FROM session_refresh(:'r_token', rotate => true);	-- not even that it was replaced
SELECT status FROM session_refresh(:'r_token' || '.' || :'p_proof', rotate => true);
-- a replay is one without a proof, too
SELECT test.gets(:'r_token2' || '.' || :'p_proof') AS used;
SET session_manager.rotation_grace = 0;
SELECT status FROM session_refresh(:'r_token', rotate => true);
SELECT test.gets(:'r_token2' || '.' || :'p_proof') AS ended, session_end_reason(:'r_token2');
RESET session_manager.rotation_grace;
-- logging out takes no proof
SELECT test.end_unproved(:'n_token');
SELECT test.gets(:'n_token') AS without, session_invalidate(:'n_token') AS user_id;

--
-- Whoever writes to the table
--
CREATE FUNCTION test.bound(OUT token text, OUT proof text, OUT id uuid) LANGUAGE sql AS $$
	SELECT b.session_token, b.proof, b.session_id FROM session_create('quin') AS s,
		LATERAL session_bind_device(s.session_token, (SELECT key FROM test.device_keys WHERE name = 'ec'),
			session_device_challenge(s.session_token)) AS b;
$$;
SET session_manager.device_proof_lifetime = 300;
SELECT * FROM test.bound() \gset t_
SELECT * FROM test.bound() \gset u_
SET session_manager.device_proof_lifetime = 1;
SELECT test.end_unproved(:'u_token');
CREATE FUNCTION test.seen_after(change text, token text, proof text, id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	seen text;
BEGIN
	BEGIN
		EXECUTE format(change, id);
		seen := test.gets(token) || ', ' || test.gets(token || '.' || proof);
		RAISE EXCEPTION 'undo';
	EXCEPTION WHEN raise_exception THEN
		RETURN seen;
	END;
END;
$$;
SELECT change, test.seen_after(change, :'t_token', :'t_proof', :'t_id')
FROM (VALUES (1, 'UPDATE user_sessions SET version = version WHERE session_id = %L'),
	(2, 'UPDATE user_sessions SET device_binding_id = NULL WHERE session_id = %L'),
	(3, 'UPDATE user_sessions SET device_binding_id = NULL, device_bound_at = NULL, device_proved_at = NULL WHERE session_id = %L'),
	(4, 'UPDATE user_sessions SET device_bound_at = clock_timestamp() WHERE session_id = %L'),
	(5, 'UPDATE user_sessions SET device_bound_at = ''infinity'' WHERE session_id = %L'),
	(6, 'UPDATE user_sessions SET device_proved_at = ''-infinity'' WHERE session_id = %L'),
	(7, 'UPDATE user_sessions SET device_binding_id = (SELECT device_binding_id FROM user_sessions WHERE user_id = ''lou'') WHERE session_id = %L'))
	AS changes (n, change)
ORDER BY n;
-- a row of before the binding, put back whole, is that of the token of before
CREATE TABLE test.row AS SELECT * FROM user_sessions WHERE false;
SELECT session_token AS before, session_id AS id FROM session_create('quin') \gset w_
INSERT INTO test.row SELECT * FROM user_sessions WHERE session_id = :'w_id';
SELECT session_token AS after FROM session_bind_device(:'w_before', :'ec', session_device_challenge(:'w_before')) \gset w_
SELECT test.end_unproved(:'w_after');
DELETE FROM user_sessions WHERE session_id = :'w_id';
INSERT INTO user_sessions SELECT * FROM test.row;
SELECT test.gets(:'w_after') AS after, test.gets(:'w_before') AS before;
DROP TABLE test.row;
-- the key of another binding of the same session: of two lines of its history, crossed
CREATE TABLE test.row AS SELECT * FROM user_sessions WHERE false;
SELECT session_token AS before, session_id AS id FROM session_create('quin') \gset x_
INSERT INTO test.row SELECT * FROM user_sessions WHERE session_id = :'x_id';
SELECT session_token AS after FROM session_bind_device(:'x_before', :'ec', session_device_challenge(:'x_before')) \gset x_
CREATE TABLE test.bound_row AS SELECT * FROM user_sessions WHERE session_id = :'x_id';
DELETE FROM user_sessions WHERE session_id = :'x_id';
INSERT INTO user_sessions SELECT * FROM test.row;
SELECT status FROM session_bind_device(:'x_before', :'rsa', session_device_challenge(:'x_before'));
UPDATE test.bound_row SET sealed_data = (SELECT sealed_data FROM user_sessions WHERE session_id = :'x_id');
DELETE FROM user_sessions WHERE session_id = :'x_id';
INSERT INTO user_sessions SELECT * FROM test.bound_row;
SELECT set_config('test.token', :'x_after', false) = :'x_after' AS set;
DO $$
BEGIN
	PERFORM FROM session_device(current_setting('test.token'));
	RAISE NOTICE 'another key';
EXCEPTION WHEN SQLSTATE 'SM004' THEN
	RAISE NOTICE 'corrupt';
END;
$$;
DELETE FROM user_sessions WHERE session_id = :'x_id';
DROP TABLE test.row, test.bound_row;
-- the seal of another row holds no key for this one
BEGIN;
SELECT set_config('test.token', :'t_token', true) = :'t_token' AS set;
UPDATE user_sessions SET sealed_data = (SELECT sealed_data FROM user_sessions WHERE session_id = :'u_id') WHERE session_id = :'t_id';
DO $$
BEGIN
	PERFORM FROM session_device(current_setting('test.token'));
EXCEPTION WHEN SQLSTATE 'SM004' THEN
	RAISE NOTICE 'corrupt';
END;
$$;
ROLLBACK;

--
-- Keys of the extension: re-sealed, and revoked
--
SELECT session_reencrypt() >= 0 AS resealed;
SELECT test.gets(:'t_token' || '.' || :'t_proof');
SELECT key_id AS old FROM session_keys() WHERE state = 'active' \gset
SELECT session_key_generate() AS new \gset
SELECT session_key_activate(:new);
SELECT test.gets(:'t_token' || '.' || :'t_proof') AS old_proof;
SELECT count(*) > 0 AS resealed FROM session_reencrypt(10000) AS n WHERE n > 0;
SELECT test.gets(:'t_token' || '.' || :'t_proof') AS old_proof, thumbprint FROM session_device(:'t_token');
SELECT status, proof FROM session_prove_device(:'t_token', session_device_challenge(:'t_token')) \gset v_
SELECT :'v_status' AS status, test.gets(:'t_token' || '.' || :'v_proof');

--
-- The audit trail
--
SELECT session_device_report(:'t_token', true, 'unreachable', '192.0.2.7', 'Browser') AS skipped,
	session_device_report(:'t_token', false, 'signature') AS failed,
	session_device_report('sm1_' || repeat('A', 64), false, 'signature') AS unknown;
SELECT session_device_report(:'t_token', false, NULL);	-- fails
SELECT session_device_report(:'t_token', false, repeat('x', 65));	-- fails
SELECT event, session_event_severity(event), ip, user_agent, detail - 'suppressed' AS detail
FROM session_history(session_id => :'t_id') WHERE event LIKE 'device%' ORDER BY event_id;
SELECT event, detail ->> 'cause' AS cause, count(*) > 0 AS found
FROM session_history(session_id => :'k_session_id', max_rows => 10000)
WHERE detail ->> 'cause' LIKE 'proof%' GROUP BY event, cause ORDER BY event, cause;
SELECT export -> 'device_bound_at' IS NOT NULL AS exported
FROM (SELECT session_export('quin')::jsonb -> 'sessions' -> 0) AS e (export);

-- nothing of it in a read-only transaction but challenges
BEGIN READ ONLY;
SELECT session_device_challenge(:'t_token') IS NOT NULL AS challenge;
SELECT count(*) FROM session_device(:'t_token');
SAVEPOINT s;
SELECT session_bind_device(:'t_token', :'ec', 'x');	-- fails
ROLLBACK TO s;
SELECT session_prove_device(:'t_token', 'x');	-- fails
ROLLBACK TO s;
SELECT session_device_report(:'t_token', true, 'x');	-- fails
ROLLBACK;

DROP FUNCTION test.seen_after, test.bound, test.gets, test.end_unproved;
DROP TABLE test.device_keys;
SELECT bool_and(session_erase(u) >= 0) AS erased FROM unnest(ARRAY['kim', 'lou', 'mia', 'noa', 'ola', 'pat', 'quin']) AS u;
