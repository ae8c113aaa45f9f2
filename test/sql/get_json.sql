--
-- session_get_json: what session_get returns, as one value
--
SET TimeZone = 'UTC';
SELECT * FROM session_create('alice "the first" \ Ünï', '{"n": 12345678901234567890.50, "s": "a\"\\\u00e9\n", "a": [1, {}, null]}',
	ip => '192.0.2.1', user_agent => 'one', tenant_id => 'acme', auth => '{"amr": ["pwd"]}') \gset a_
SELECT session_token_digest(:'a_session_token') AS a_digest \gset

-- The members and their types
SELECT key, json_typeof(value) FROM json_each(session_get_json(:'a_session_token'));
SELECT pg_typeof(session_get_json(:'a_session_token'));
-- Data keeps its numbers.
SELECT j ->> 'user_id' AS user_id, j -> 'data' AS data, j -> 'auth' AS auth FROM session_get_json(:'a_digest') AS j;

-- The same as the row, times in microseconds since 1970
CREATE FUNCTION test.same(j json, g live_session) RETURNS boolean
RETURN (j ->> 'session_id') = g.session_id::text
	AND j ->> 'user_id' = g.user_id
	AND j ->> 'tenant_id' IS NOT DISTINCT FROM g.tenant_id
	AND (j -> 'data')::text = g.data::text
	AND (j ->> 'version')::integer = g.version
	AND nullif((j -> 'auth')::text, 'null') IS NOT DISTINCT FROM g.auth::text
	AND test.at(j, 'created_at') = g.created_at
	AND test.at(j, 'authenticated_at') = g.authenticated_at
	AND test.at(j, 'last_seen_at') = g.last_seen_at
	AND test.at(j, 'expires_at') = g.expires_at
	AND test.at(j, 'absolute_expires_at') = g.absolute_expires_at
	AND (j ->> 'cacheable')::boolean = g.cacheable
	AND j ->> 'actor_id' IS NOT DISTINCT FROM g.actor_id
	AND test.at(j, 'device_proved_at') IS NOT DISTINCT FROM g.device_proved_at
	AND NOT (j ->> 'device_proved')::boolean
	AND test.at(j, 'read_at') BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp();
SELECT test.same(session_get_json(:'a_session_token'), g) FROM session_get(:'a_session_token') AS g;
-- the least that a session has, and one with an actor
SELECT session_token AS b_token FROM session_create('bob') \gset
SELECT test.same(session_get_json(:'b_token'), g) FROM session_get(:'b_token') AS g;
SELECT session_token AS c_token FROM session_create('carol', actor_token => :'b_token') \gset
SELECT test.same(session_get_json(:'c_token'), g), g.actor_id FROM session_get(:'c_token') AS g;
-- data as large as it may be
SELECT session_token AS d_token FROM session_create('dave', jsonb_build_object('x', repeat('"\', 30000))) \gset
SELECT test.same(session_get_json(:'d_token'), g), length(g.data ->> 'x') FROM session_get(:'d_token') AS g;

-- No session: null
SELECT session_get_json(NULL) IS NULL, session_get_json('x') IS NULL, session_get_json(test.change_char(:'a_digest', 50)) IS NULL;
SELECT session_invalidate(:'d_token');
SELECT session_get_json(:'d_token') IS NULL;

-- It records a use as session_get does: the first of a rotated token at once.
SELECT session_token AS r_token FROM session_refresh(:'b_token', true) \gset
SELECT test.at(session_get_json(:'r_token', touch => false), 'last_seen_at') < clock_timestamp() - interval '1 microsecond' AS as_it_was;
SELECT (j ->> 'last_seen_at') = (j ->> 'read_at') AS now FROM session_get_json(:'r_token', '192.0.2.7', 'new') AS j;
SELECT session_get_json(:'b_token') IS NULL AS replayed;

-- In every place where a function can stand, and as often
SELECT count(session_get_json(:'a_session_token', touch => i > 0)) FROM generate_series(1, 100) AS i;
PREPARE find(text) AS SELECT session_get_json($1) ->> 'user_id';
EXECUTE find(:'a_session_token');
EXECUTE find('x');
DEALLOCATE find;

-- What was tampered with is an error, as it is there.
UPDATE user_sessions SET sealed_data = set_byte(sealed_data, 40, get_byte(sealed_data, 40) # 1) WHERE session_id = :'a_session_id';
\set VERBOSITY sqlstate
SELECT session_get_json(:'a_session_token');
SELECT * FROM session_get(:'a_session_token');
\set VERBOSITY default

-- Times that an administrator has moved beyond what a number can say
SELECT session_id AS e_id, session_token AS e_token FROM session_create('erin') \gset
UPDATE user_sessions SET last_seen_at = 'infinity' WHERE session_id = :'e_id';
SELECT session_get_json(:'e_token') ->> 'last_seen_at' AS last_seen_at;
UPDATE user_sessions SET last_seen_at = '-infinity' WHERE session_id = :'e_id';
SELECT session_get_json(:'e_token', touch => false) ->> 'last_seen_at' AS last_seen_at;

DROP FUNCTION test.same(json, live_session);
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
