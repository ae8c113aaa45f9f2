--
-- session_create
--
SET TimeZone = 'UTC';

-- Defaults
SELECT * FROM session_create('alice') \gset a_
SELECT user_id, tenant_id, data, version, auth,
	authenticated_at = created_at AS authenticated, last_seen_at = created_at AS seen,
	expires_at - created_at AS lifetime, absolute_expires_at - created_at AS absolute,
	created_at = :'a_created_at' AND expires_at = :'a_expires_at'
		AND absolute_expires_at = :'a_absolute_expires_at' AND session_id = :'a_session_id' AS as_returned,
	clock_timestamp() - created_at < '1 min' AS now
FROM session_get(:'a_session_token');

-- The clock is the wall clock, not the transaction's start.
BEGIN;
SELECT count(*) FROM (SELECT pg_sleep(0.01)) AS s;
SELECT created_at > now() AS later FROM session_create('alice');
ROLLBACK;

-- Everything given
SELECT * FROM session_create('bob', '{"plan": "pro", "naïve": ["ü", 1.50, null, {"deep": {"er": true}}]}',
	ttl => '1 hour', ip => '2001:db8::1', user_agent => 'Mozilla/5.0', tenant_id => 'acme',
	auth => '{"amr": ["pwd"]}') \gset b_
SELECT user_id, tenant_id, data, version, auth, expires_at - created_at AS lifetime,
	absolute_expires_at - created_at AS absolute
FROM session_get(:'b_session_token');
SELECT ip, user_agent, ttl, octet_length(verifier) AS verifier, version, key_id, verifier_key_id, sweep_at = expires_at AS sweep,
	rotated_at, successor_used_at, previous_valid_until, previous_key_id, previous_verifier, revoked_at, revoked_reason
FROM user_sessions WHERE session_id = :'b_session_id';
SELECT event, user_id, tenant_id, ip, user_agent, detail
FROM session_events WHERE session_id = :'b_session_id';

-- Nothing readable is stored.
SELECT position('plan'::bytea IN sealed_data) + position('pro'::bytea IN sealed_data) + position('pwd'::bytea IN sealed_data) AS readable
FROM user_sessions WHERE session_id = :'b_session_id';

-- Sizes are padded, so that they tell little.
SELECT count(*) FROM generate_series(1, 64) AS n, session_create('padding', jsonb_build_object('k', repeat('x', n)));
SELECT count(DISTINCT octet_length(sealed_data)) FROM user_sessions WHERE user_id = 'padding';

-- Every kind of jsonb comes back as it was.
CREATE TABLE test.value (data jsonb);
INSERT INTO test.value VALUES
	('{}'), ('{"": ""}'), ('{"a": null}'), ('{"a": [[], {}, [[]]]}'),
	('{"n": 1e-200}'), ('{"n": -123456789012345678901234567890.123}'), ('{"t": true, "f": false}'),
	('{"emoji": "👩‍💻", "rtl": "مرحبا", "esc": "\"\\\n\t"}'),
	(jsonb_build_object('many', (SELECT jsonb_object_agg('key' || i, i) FROM generate_series(1, 1000) AS i))),
	(jsonb_build_object('long', repeat('long ', 10000)));
SELECT count(*) FILTER (WHERE g.data = v.data AND g.data::text = v.data::text) AS same,
	count(*) FILTER (WHERE g.auth = v.data) AS same_auth, count(*)
FROM test.value AS v, session_create('values', v.data, auth => v.data) AS c, session_get(c.session_token) AS g
WHERE octet_length(v.data::text) < 25000;
SELECT count(*) FILTER (WHERE g.data = v.data) AS same, count(*)
FROM test.value AS v, session_create('values', v.data) AS c, session_get(c.session_token) AS g;

-- Same user, two logins: nothing in common but the bucket
SELECT c1.session_id <> c2.session_id AS ids, c1.session_token <> c2.session_token AS tokens,
	session_bucket(c1.session_id) = session_bucket(c2.session_id) AS bucket
FROM session_create('alice') AS c1, session_create('alice') AS c2;

-- User agents are cut to 512 bytes, never inside a character.
SELECT count(*) FROM (VALUES (511), (510)) AS v(n), session_create('agent', user_agent => repeat('x', n) || 'üü');
SELECT octet_length(user_agent) AS bytes, length(user_agent) AS chars FROM user_sessions WHERE user_id = 'agent' ORDER BY 1;
SELECT octet_length(user_agent) AS bytes FROM session_events WHERE user_id = 'agent' ORDER BY 1;

-- Who
CALL test.error('SELECT session_create(NULL)');
CALL test.error($$SELECT session_create('')$$);
CALL test.error($$SELECT session_create(repeat('x', 513))$$);
CALL test.error($$SELECT session_create(repeat('ü', 257))$$);
SELECT session_id IS NOT NULL AS created FROM session_create(repeat('ü', 256));
CALL test.error($$SELECT session_create('alice', tenant_id => '')$$);
CALL test.error($$SELECT session_create('alice', tenant_id => repeat('x', 513))$$);
SELECT session_id IS NOT NULL AS created FROM session_create('alice', tenant_id => repeat('x', 512));

-- For how long
CALL test.error($$SELECT session_create('alice', ttl => '0')$$);
CALL test.error($$SELECT session_create('alice', ttl => '-1 second')$$);
CALL test.error($$SELECT session_create('alice', ttl => '7 days 0.000001 seconds')$$);
CALL test.error($$SELECT session_create('alice', ttl => '1 month')$$);
CALL test.error($$SELECT session_create('alice', ttl => '1 month -40 days')$$);
CALL test.error($$SELECT session_create('alice', ttl => '170000000 years')$$);
CALL test.error($$SELECT session_create('alice', ttl => '-170000000 years')$$);
-- intervals can be infinite from PostgreSQL 17 on
DO $$
BEGIN
	IF current_setting('server_version_num')::integer >= 170000 THEN
		FOR i IN 1..2 LOOP
			BEGIN
				PERFORM session_create('alice', ttl => (ARRAY['infinity', '-infinity'])[i]::interval);
				RAISE 'accepted an infinite ttl';
			EXCEPTION WHEN invalid_parameter_value THEN
				NULL;
			END;
		END LOOP;
	END IF;
END
$$;
SELECT expires_at - created_at AS lifetime, absolute_expires_at - created_at AS absolute
FROM session_create('alice', ttl => '7 days');
SELECT expires_at - created_at AS lifetime FROM session_create('alice', ttl => '1 microsecond');
SET session_manager.ttl = '2h';
SET session_manager.max_lifetime = '1h';
SELECT expires_at - created_at AS lifetime, absolute_expires_at - created_at AS absolute
FROM session_create('alice');
CALL test.error($$SELECT session_create('alice', ttl => '61 min')$$);
RESET session_manager.ttl;
RESET session_manager.max_lifetime;

-- An absolute end of its own, which neither ttl nor a refresh goes beyond
SELECT expires_at - created_at AS lifetime, absolute_expires_at - created_at AS absolute
FROM session_create('alice', max_lifetime => '2 hours');
SELECT session_token, expires_at - created_at AS lifetime, absolute_expires_at - created_at AS absolute, absolute_expires_at
FROM session_create('alice', ttl => '1 day', max_lifetime => '2 hours') \gset m_
SELECT :'m_lifetime' AS lifetime, :'m_absolute' AS absolute;
SELECT status, expires_at = :'m_absolute_expires_at' AS cut, absolute_expires_at = :'m_absolute_expires_at' AS same_end
FROM session_refresh(:'m_session_token', ttl => '7 days');
SELECT expires_at - created_at AS lifetime, absolute_expires_at - created_at AS absolute
FROM session_create('alice', ttl => '1 hour', max_lifetime => '7 days');
CALL test.error($$SELECT session_create('alice', max_lifetime => '0')$$);
CALL test.error($$SELECT session_create('alice', max_lifetime => '-1 day')$$);
CALL test.error($$SELECT session_create('alice', max_lifetime => '7 days 0.000001 seconds')$$);
CALL test.error($$SELECT session_create('alice', max_lifetime => '170000000 years')$$);

-- With what
CALL test.error($$SELECT session_create('alice', '[1, 2]')$$);
CALL test.error($$SELECT session_create('alice', '"secret text"')$$);
CALL test.error($$SELECT session_create('alice', 'null')$$);
SELECT data FROM session_create('alice', NULL) AS c, session_get(c.session_token);
CALL test.error($$SELECT session_create('alice', auth => '[1, 2]')$$);
CALL test.error($$SELECT session_create('alice', auth => 'null')$$);
CALL test.error($$SELECT session_create('alice', jsonb_build_object('secret', repeat('x', 65536)))$$);
CALL test.error($$SELECT session_create('alice', auth => jsonb_build_object('secret', repeat('x', 65536)))$$);
-- exactly at the limit, and one more
SET session_manager.max_data_size = 1024;
SELECT session_id IS NOT NULL AS created
FROM session_create('alice', jsonb_build_object('k', repeat('x', 1024 - pg_column_size('{"k": ""}'::jsonb))));
CALL test.error($$SELECT session_create('alice', jsonb_build_object('k', repeat('x', 1025 - pg_column_size('{"k": ""}'::jsonb))))$$);
RESET session_manager.max_data_size;

-- A failed or rolled-back login leaves nothing.
BEGIN;
SELECT session_token FROM session_create('erin', '{"n": 1}') \gset e_
SELECT data FROM session_get(:'e_session_token');
SAVEPOINT s;
SELECT data FROM session_update(:'e_session_token', '{"n": 2}');
ROLLBACK TO s;
SELECT data FROM session_get(:'e_session_token');
ROLLBACK;
SELECT count(*) FROM session_get(:'e_session_token');
SELECT count(*) AS more FROM user_sessions WHERE user_id = 'erin';
SELECT count(*) FROM session_events WHERE user_id = 'erin';

-- One login event per session, none with a token or data in it
SELECT (SELECT count(*) FROM user_sessions) = (SELECT count(*) FROM user_sessions JOIN session_events USING (session_id) WHERE event = 'created') AS one_each;
SELECT count(*) FROM session_events WHERE detail::text ~ 's[md]1_' OR detail::text ~ 'plan';

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
