--
-- session_update and session_update_user: JSON Merge Patch (RFC 7396)
--
SELECT session_id, session_token FROM session_create('alice', '{"n": 1}', auth => '{"amr": ["pwd"]}') \gset a_

-- The examples of RFC 7396, appendix A.  Session data is an object, so each
-- runs as the value of a member as well, where no more than that is allowed.
CREATE TABLE test.rfc7396 (n serial, original jsonb, patch jsonb, result jsonb);
INSERT INTO test.rfc7396 (original, patch, result) VALUES
	('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
	('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
	('{"a":"b"}', '{"a":null}', '{}'),
	('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
	('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
	('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
	('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
	('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
	('["a","b"]', '["c","d"]', '["c","d"]'),
	('{"a":"b"}', '["c"]', '["c"]'),
	('{"a":"foo"}', 'null', 'null'),
	('{"a":"foo"}', '"bar"', '"bar"'),
	('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
	('[1,2]', '{"a":"b","c":null}', '{"a":"b"}'),
	('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}');
CREATE FUNCTION test.merge(token text, original jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
	returned jsonb;
BEGIN
	PERFORM session_update(token, original, replace => true);
	SELECT data INTO returned FROM session_update(token, patch);
	IF returned IS DISTINCT FROM (SELECT data FROM session_get(token)) THEN
		RAISE 'what is returned is not what is stored';
	END IF;
	RETURN returned;
END
$$;
SELECT n, merged, merged = result AS agrees
FROM test.rfc7396, test.merge(:'a_session_token', original, patch) AS merged
WHERE jsonb_typeof(original) = 'object' AND jsonb_typeof(patch) = 'object' ORDER BY n;
-- As a member: a null patch removes it.
SELECT n, merged, merged = CASE result WHEN 'null' THEN '{}' ELSE jsonb_build_object('x', result) END AS agrees
FROM test.rfc7396,
	test.merge(:'a_session_token', jsonb_build_object('x', original), jsonb_build_object('x', patch)) AS merged
ORDER BY n;
-- More depth and width than the examples have
SELECT merged FROM test.merge(:'a_session_token',
	'{"a": {"b": {"c": {"d": 1, "e": 2}}}, "list": [{"keep": null}], "z": 0}',
	'{"a": {"b": {"c": {"d": null, "f": {"g": null, "h": [null]}}}}, "list": [null], "": {"": null}}') AS merged;
SELECT merged = (SELECT jsonb_object_agg('k' || i, i * 2) FROM generate_series(1, 1000) AS i WHERE i % 2 = 0) AS agrees
FROM test.merge(:'a_session_token',
	(SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 1000) AS i),
	(SELECT jsonb_object_agg('k' || i, CASE WHEN i % 2 = 0 THEN i * 2 END) FROM generate_series(1, 1000) AS i)) AS merged;
-- deep nesting ends in an error or a result, never in a crash
SET session_manager.max_data_size = '1MB';
SELECT merged IS NOT NULL AS merged FROM test.merge(:'a_session_token',
	'{}', (repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb) AS merged;
RESET session_manager.max_data_size;

-- Versions: counted from 1, compared when asked, told in the DETAIL
SELECT session_id, session_token FROM session_create('bob', '{"n": 1, "keep": true}', auth => '{"amr": ["pwd"]}') \gset b_
SELECT * FROM session_update(:'b_session_token', '{"n": 2}');
SELECT * FROM session_update(:'b_session_token', '{"n": 3}', expected_version => 2);
CALL test.error(format('SELECT session_update(%L, ''{"n": 4}'', expected_version => 2)', :'b_session_token'));
CALL test.error(format('SELECT session_update(%L, ''{"n": 4}'', expected_version => 4)', :'b_session_token'));
CALL test.error(format('SELECT session_update(%L, ''{"n": 4}'', expected_version => 0, replace => true)', :'b_session_token'));
SELECT data, version, auth FROM session_get(:'b_session_token');
SELECT * FROM session_update(session_token_digest(:'b_session_token'), '{"n": null, "via": "digest"}');
SELECT * FROM session_update(:'b_session_token', '{}');			-- nothing to change, nothing written
SELECT * FROM session_update(:'b_session_token', '{"a": null, "b": {"c": null}}', replace => true);	-- nulls are data here
SELECT * FROM session_update(:'b_session_token', '{"z": 1}', expected_version => 5, replace => NULL);
SELECT data, version, auth, authenticated_at = created_at AS unelevated FROM session_get(:'b_session_token');
SELECT event, detail FROM test.events(:'b_session_id');

-- What is not an object, or nothing
CALL test.error(format('SELECT session_update(%L, NULL)', :'b_session_token'));
CALL test.error(format('SELECT session_update(%L, ''[1]'')', :'b_session_token'));
CALL test.error(format('SELECT session_update(%L, ''"secret text"'', replace => true)', :'b_session_token'));
CALL test.error(format('SELECT session_update(%L, ''null'', replace => true)', :'b_session_token'));

-- Too large, as a patch and as a result; the content is not told
SET session_manager.max_data_size = 256;
CALL test.error(format('SELECT session_update(%L, %L)', :'b_session_token', jsonb_build_object('secret', repeat('x', 300))));
SELECT version FROM session_update(:'b_session_token', jsonb_build_object('p', repeat('x', 150)));
CALL test.error(format('SELECT session_update(%L, %L)', :'b_session_token', jsonb_build_object('q', repeat('x', 150))));
SELECT version FROM session_update(:'b_session_token', jsonb_build_object('q', repeat('x', 150), 'p', NULL));
RESET session_manager.max_data_size;
SELECT version, octet_length(data::text) FROM session_get(:'b_session_token');

-- Nothing that is not live is changed, let alone brought back.
SELECT * FROM session_update(NULL, '{}');
SELECT * FROM session_update('x', '{}');
SELECT * FROM session_update('sm1_' || repeat('A', 64), '{}');
SELECT * FROM session_update(test.change_char(:'b_session_token', 68), '{}');
SELECT session_id, session_token FROM session_create('ended', '{"n": 1}') \gset e_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'e_session_id';
SELECT * FROM session_update(:'e_session_token', '{"n": 2}');
SELECT * FROM session_update(:'e_session_token', '{"n": 2}', expected_version => 99);	-- no oracle
SELECT version, expires_at < clock_timestamp() AS expired FROM user_sessions WHERE session_id = :'e_session_id';
SELECT session_invalidate(:'a_session_token');
SELECT * FROM session_update(:'a_session_token', '{"n": 2}');
SELECT * FROM session_get(:'a_session_token');
DELETE FROM user_sessions WHERE session_id = :'e_session_id';
SELECT * FROM session_update(:'e_session_token', '{"n": 2}');
SELECT count(*) FROM user_sessions WHERE session_id = :'e_session_id';
SELECT session_id, session_token FROM session_create('idle') \gset i_
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '1 hour' WHERE session_id = :'i_session_id';
SET session_manager.idle_timeout = '10min';
SELECT * FROM session_update(:'i_session_token', '{}');
RESET session_manager.idle_timeout;

-- Several updates in one transaction, some of it undone
BEGIN;
SELECT version FROM session_update(:'b_session_token', '{"t": 1}', replace => true);
SAVEPOINT s;
SELECT version FROM session_update(:'b_session_token', '{"t": 2}');
ROLLBACK TO s;
SELECT * FROM session_update(:'b_session_token', '{"u": 3}');
COMMIT;
SELECT data, version FROM session_get(:'b_session_token');
SELECT count(u.version) FROM generate_series(1, 100) AS i, session_update(:'b_session_token', jsonb_build_object('i', i)) AS u;
SELECT data, version FROM session_get(:'b_session_token');

--
-- All live sessions of a user at once, without their tokens
--
SELECT session_token FROM session_create('carol', '{"plan": "free", "n": 1}') \gset c1_
SELECT session_token FROM session_create('carol', '{"plan": "free", "n": 2}', tenant_id => 'acme') \gset c2_
SELECT session_token FROM session_create('carol', '{"plan": "free", "n": 3}', tenant_id => 'acme') \gset c3_
SELECT session_id, session_token FROM session_create('carol', '{"plan": "free", "n": 4}') \gset c4_
SELECT session_token FROM session_create('carol2', '{"plan": "free"}') \gset c5_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'c4_session_id';
SELECT session_invalidate(:'c3_session_token');
SELECT session_update_user('carol', '{"plan": "pro", "n": null}');
SELECT data, version FROM session_get(:'c1_session_token');
SELECT data, version FROM session_get(:'c2_session_token');
SELECT data, version FROM session_get(:'c5_session_token');
SELECT version FROM user_sessions WHERE session_id = :'c4_session_id';
SELECT session_update_user('carol', '{"seats": 5}', tenant_id => 'acme');
SELECT data, version FROM session_get(:'c1_session_token');
SELECT data, version FROM session_get(:'c2_session_token');
SELECT session_update_user('carol', '{}', tenant_id => 'none'), session_update_user('nobody', '{}');
SELECT event, tenant_id, detail FROM session_events WHERE user_id = 'carol' AND event = 'updated' ORDER BY event_id;
CALL test.error($$SELECT session_update_user('carol', '[]')$$);
CALL test.error($$SELECT session_update_user('carol', NULL)$$);
CALL test.error($$SELECT session_update_user(NULL, '{}')$$);
CALL test.error($$SELECT session_update_user('', '{}')$$);
-- The size of the patch is what counts: whoever has no token does not learn by
-- it how large the data is, nor what is in it.
CREATE FUNCTION test.probe(who text, pad integer, OUT outcome text) LANGUAGE plpgsql AS $$
BEGIN
	outcome := 'ok ' || session_update_user(who, jsonb_build_object('pad', repeat('p', pad), 'secret', NULL));
	outcome := outcome || ' ' || (SELECT count(*) FROM session_history(user_id => who, max_rows => 10000) WHERE event = 'updated');
	RAISE 'undo' USING ERRCODE = 'ZZ001';
EXCEPTION WHEN sqlstate 'ZZ001' THEN
	NULL;
WHEN OTHERS THEN
	outcome := SQLSTATE;
END
$$;
SET session_manager.max_data_size = 1000;
SELECT count(*) FROM session_create('none');
SELECT count(*) FROM session_create('short', '{"secret": "abc"}');
SELECT count(*) FROM session_create('other', '{"public": "abc"}');
SELECT count(*) FROM session_create('large', jsonb_build_object('public', repeat('x', 950)));
SELECT count(*) FROM session_create('full', jsonb_build_object('public', repeat('x', 900)));
SELECT session_update_user('full', jsonb_build_object('a', repeat('x', 900))), session_update_user('full', jsonb_build_object('b', repeat('x', 900)));
SELECT count(*) FROM session_events WHERE user_id = 'full' AND event = 'updated';
SELECT who, count(*) AS probes, count(DISTINCT replace(outcome, CASE who WHEN 'full' THEN 'ok 1 3' ELSE 'ok 1 1' END, 'ok')) AS outcomes,
	min(outcome), max(pad) FILTER (WHERE outcome LIKE 'ok%') AS longest
FROM unnest(ARRAY['none', 'short', 'other', 'large', 'full']) AS who, generate_series(0, 1000, 25) AS pad, test.probe(who, pad) AS outcome
WHERE pad <= 925
GROUP BY who ORDER BY who;
SELECT who, outcome FROM unnest(ARRAY['none', 'short', 'large', 'full']) AS who, test.probe(who, 1000) AS outcome;
DROP FUNCTION test.probe(text, integer);
-- The patch finds room beside what the holder may have; beyond that the data
-- stays as it is, which only the server's log says.
SELECT session_token FROM session_create('dave', jsonb_build_object('own', repeat('x', 900))) \gset d_
SELECT session_update_user('dave', jsonb_build_object('a', repeat('x', 900)));
SELECT session_update_user('dave', jsonb_build_object('b', repeat('x', 900)));
SELECT version, data ? 'a' AS a, data ? 'b' AS b FROM session_get(:'d_session_token');
-- the holder may shrink it, not let it grow
CALL test.error(format('SELECT session_update(%L, ''{"c": 1}'')', :'d_session_token'));
SELECT version, data ? 'a' AS a FROM session_update(:'d_session_token', '{"own": 1}');
SELECT version, data ? 'a' AS a FROM session_update(:'d_session_token', '{"a": null, "c": 1}');
SELECT session_update_user('dave', jsonb_build_object('b', repeat('x', 900)));
SELECT version, data ? 'b' AS b FROM session_get(:'d_session_token');
RESET session_manager.max_data_size;

DROP TABLE test.rfc7396;
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
