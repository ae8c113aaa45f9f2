--
-- session_elevate: the user proved more; the old token is void at once
--
SET TimeZone = 'UTC';
SELECT * FROM session_create('alice', '{"cart": [1]}', auth => '{"amr": ["pwd"], "acr": "1"}', tenant_id => 'acme') \gset a1_
SELECT count(*) FROM (SELECT pg_sleep(0.01)) AS s;
SELECT r.*, test.shown(r) FROM session_elevate(:'a1_session_token', '{"amr": ["pwd", "otp"]}') AS r \gset a2_
SELECT :'a2_shown' AS shown, :'a2_session_id' = :'a1_session_id' AS same_id, :'a2_session_token' <> :'a1_session_token' AS new_token,
	:'a2_expires_at' >= :'a1_expires_at' AS not_shorter, :'a2_absolute_expires_at' = :'a1_absolute_expires_at' AS same_end;
SELECT user_id, tenant_id, data, version, auth, authenticated_at > created_at AS elevated, expires_at = :'a2_expires_at' AS as_returned
FROM session_get(:'a2_session_token');
-- no grace for the old token
SELECT count(*) FROM session_get(:'a1_session_token');
SELECT * FROM session_update(:'a1_session_token', '{}');
SELECT session_bind(:'a1_session_token');
SELECT test.shown(r) FROM session_elevate(:'a1_session_token', '{}') AS r;
-- a tab that did not hear of it yet is no thief: it is told "ended"
SELECT test.shown(r) FROM session_refresh(:'a1_session_token', rotate => true) AS r;
SELECT count(*) FROM session_get(:'a2_session_token');
-- later it is one
SET session_manager.rotation_grace = 0;
SELECT test.shown(r) FROM session_refresh(:'a1_session_token', rotate => true) AS r;
RESET session_manager.rotation_grace;
SELECT count(*) FROM session_get(:'a2_session_token');
SELECT event, detail FROM test.events(:'a1_session_id') WHERE event NOT IN ('rejected', 'bind_failed');

-- never used successor: the old token stays dead, the session lives
SELECT * FROM session_create('bob') \gset b1_
SELECT session_token FROM session_elevate(:'b1_session_token', '{"amr": ["otp"]}') \gset b2_
SET session_manager.rotation_grace = 0;
SELECT test.shown(r) FROM session_refresh(:'b1_session_token', rotate => true) AS r;
RESET session_manager.rotation_grace;
SELECT auth FROM session_get(:'b2_session_token');

-- auth is replaced, data only when given
SELECT session_token FROM session_elevate(:'b2_session_token', '{"acr": "2"}', '{"new": true}') \gset b3_
SELECT data, version, auth FROM session_get(:'b3_session_token');
SELECT session_token FROM session_elevate(session_token_digest(:'b3_session_token'), '{}') \gset b4_
SELECT data, version, auth FROM session_get(:'b4_session_token');
SELECT version FROM session_update(:'b4_session_token', '{"v": 3}');
SELECT data, version, auth FROM session_get(:'b4_session_token');

-- what a client package keeps in auth stays, unless it is given anew
SELECT session_token FROM session_create('carol', auth => '{"_user": "x", "": 1, "amr": ["pwd"], "_null": null}') \gset c1_
SELECT session_token FROM session_elevate(:'c1_session_token', '{"amr": ["otp"], "acr": null}') \gset c2_
SELECT auth FROM session_get(:'c2_session_token');
SELECT session_token FROM session_elevate(:'c2_session_token', '{"_user": {"key": [1]}}') \gset c3_
SELECT auth FROM session_get(:'c3_session_token');

-- the previous token of a rotation elevates nothing
SELECT session_token FROM session_refresh(:'b4_session_token', rotate => true) \gset b5_
SELECT test.shown(r) FROM session_elevate(:'b4_session_token', '{"acr": "9"}') AS r;
SELECT auth FROM session_get(:'b5_session_token');

-- what is wrong with the input
CALL test.error(format('SELECT session_elevate(%L, NULL)', :'b5_session_token'));
CALL test.error(format('SELECT session_elevate(%L, ''[]'')', :'b5_session_token'));
CALL test.error(format('SELECT session_elevate(%L, ''{}'', ''"secret text"'')', :'b5_session_token'));
SET session_manager.max_data_size = 64;
CALL test.error(format('SELECT session_elevate(%L, %L)', :'b5_session_token', jsonb_build_object('secret', repeat('x', 64))));
CALL test.error(format('SELECT session_elevate(%L, ''{}'', %L)', :'b5_session_token', jsonb_build_object('secret', repeat('x', 64))));
RESET session_manager.max_data_size;
SELECT auth FROM session_get(:'b5_session_token');

-- no live session
SELECT test.shown(r) FROM session_elevate(NULL, '{}') AS r;
SELECT test.shown(r) FROM session_elevate('x', '{}') AS r;
SELECT test.shown(r) FROM session_elevate('sm1_' || repeat('A', 64), '{}') AS r;
SELECT test.shown(r) FROM session_elevate(test.change_char(:'b5_session_token', 68), '{}') AS r;
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'b1_session_id';
SELECT test.shown(r) FROM session_elevate(:'b5_session_token', '{}') AS r;
SELECT count(*) FROM session_get(:'b5_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
