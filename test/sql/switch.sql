--
-- session_switch_tenant: go on in another tenant, with a new session
--
SET TimeZone = 'UTC';
LOAD 'session_manager';
SELECT * FROM session_create('alice', '{"cart": [1]}', ttl => '1 hour', ip => '192.0.2.1', user_agent => 'Firefox',
	tenant_id => 'acme', auth => '{"amr": ["pwd"]}', max_lifetime => '1 day') \gset a1_
SELECT count(*) FROM (SELECT pg_sleep(0.01)) AS s;
SELECT r.*, test.shown(r) FROM session_switch_tenant(:'a1_session_token', 'globex', '{"plan": "team"}') AS r \gset a2_
SELECT :'a2_shown' AS shown, :'a2_session_id' <> :'a1_session_id' AS new_session, :'a2_expires_at' > :'a1_expires_at' AS extended,
	:'a2_absolute_expires_at' = :'a1_absolute_expires_at' AS same_end, session_bucket(:'a2_session_id'::uuid) = session_bucket('alice') AS bucket;
SELECT g.tenant_id, g.data, g.version, g.auth, authenticated_at = :'a1_created_at' AS proof_kept, created_at > :'a1_created_at' AS made_later,
	expires_at = :'a2_expires_at' AS as_returned, absolute_expires_at = :'a1_absolute_expires_at' AS same_end, s.ip, s.user_agent, s.ttl, s.rotated_at
FROM session_get(:'a2_session_token') AS g JOIN user_sessions AS s USING (session_id, authenticated_at, created_at, expires_at, absolute_expires_at);
-- the old one is over
SELECT session_status(:'a1_session_token');
SELECT count(*) FROM session_get(:'a1_session_token');
SELECT test.shown(r) FROM session_switch_tenant(:'a1_session_token', 'initech') AS r;
SELECT test.shown(r) FROM session_refresh(:'a1_session_token') AS r;
SELECT tenant_id, ended_reason FROM session_list('alice', include_ended => true);
-- each event names the other session
SELECT event, detail - 'successor' AS detail, detail ->> 'successor' = :'a2_session_id' AS successor FROM test.events(:'a1_session_id');
SELECT event, detail - 'predecessor' AS detail, detail ->> 'predecessor' = :'a1_session_id' AS predecessor FROM test.events(:'a2_session_id');

-- data of one tenant does not reach another unless it is given; no tenant is one as well
SELECT session_token FROM session_switch_tenant(session_token_digest(:'a2_session_token'), NULL) \gset a3_
SELECT tenant_id, data, auth FROM session_get(:'a3_session_token');
SELECT session_token FROM session_switch_tenant(:'a3_session_token', 'acme', '{"back": true}') \gset a4_
SELECT tenant_id, data, auth FROM session_get(:'a4_session_token');
-- the same tenant
SELECT session_token FROM session_switch_tenant(:'a4_session_token', 'acme') \gset a5_
SELECT tenant_id, data FROM session_get(:'a5_session_token');
SELECT count(*) FROM session_list('alice');

-- the previous token of a rotation gets no session: neither in its grace nor after,
-- nor once its successor has been used
SELECT session_token FROM session_refresh(:'a5_session_token', rotate => true) \gset a6_
SELECT test.shown(r) FROM session_switch_tenant(:'a5_session_token', 'globex') AS r;
SET session_manager.rotation_grace = 0;
SELECT test.shown(r) FROM session_switch_tenant(:'a5_session_token', 'globex') AS r;
SELECT count(*) FROM session_get(:'a6_session_token');
SELECT test.shown(r) FROM session_switch_tenant(:'a5_session_token', 'globex') AS r;
RESET session_manager.rotation_grace;
SELECT session_token FROM session_elevate(:'a6_session_token', '{"amr": ["otp"]}') \gset a7_
SELECT test.shown(r) FROM session_switch_tenant(:'a6_session_token', 'globex') AS r;
SELECT count(*) FROM session_list('alice');
SELECT tenant_id, auth FROM session_get(:'a7_session_token');
-- an elevation goes along
SELECT session_token FROM session_switch_tenant(:'a7_session_token', 'globex') \gset a8_
SELECT tenant_id, auth, authenticated_at < created_at AS proof_kept FROM session_get(:'a8_session_token');

-- the absolute end is not moved, however often
SELECT session_token, absolute_expires_at FROM session_create('bob', ttl => '1 day', max_lifetime => '1 hour') \gset b_
SELECT session_token, absolute_expires_at FROM session_switch_tenant(:'b_session_token', 'x') \gset b2_
SELECT session_token, absolute_expires_at, expires_at FROM session_switch_tenant(:'b2_session_token', 'y') \gset b3_
SELECT :'b_absolute_expires_at' = :'b3_absolute_expires_at' AS same_end, :'b3_expires_at' = :'b3_absolute_expires_at' AS cut;

-- one for one: the limit neither ends another session nor refuses
SET session_manager.max_sessions_per_user = 2;
SELECT session_token FROM session_create('carol', tenant_id => 'acme') \gset c1_
SELECT session_token FROM session_create('carol', tenant_id => 'acme') \gset c2_
SELECT session_token FROM session_switch_tenant(:'c2_session_token', 'globex') \gset c3_
SELECT session_status(:'c1_session_token'), session_status(:'c2_session_token'), session_status(:'c3_session_token');
SET session_manager.on_limit = deny;
SELECT status, session_token FROM session_switch_tenant(:'c3_session_token', 'initech') \gset c4_
SELECT :'c4_status' AS status, session_status(:'c1_session_token'), session_status(:'c4_session_token');
CALL test.error($$SELECT session_create('carol')$$);
RESET session_manager.on_limit;
RESET session_manager.max_sessions_per_user;

-- undone, the old one is as it was
BEGIN;
SELECT session_token FROM session_switch_tenant(:'c4_session_token', 'globex') \gset c5_
SELECT session_status(:'c4_session_token'), session_status(:'c5_session_token');
ROLLBACK;
SELECT session_status(:'c4_session_token'), session_status(:'c5_session_token');

-- what is wrong with the input
CALL test.error(format('SELECT session_switch_tenant(%L, '''')', :'c4_session_token'));
CALL test.error(format('SELECT session_switch_tenant(%L, ''x'', ''[]'')', :'c4_session_token'));
SET session_manager.max_data_size = 64;
CALL test.error(format('SELECT session_switch_tenant(%L, ''x'', %L)', :'c4_session_token', jsonb_build_object('secret', repeat('x', 64))));
RESET session_manager.max_data_size;
BEGIN READ ONLY;
CALL test.error(format('SELECT session_switch_tenant(%L, ''x'')', :'c4_session_token'));
CALL test.error($$SELECT session_switch_tenant('x', 'x')$$);
ROLLBACK;
SELECT count(*) FROM session_get(:'c4_session_token');

-- no live session: no new one
SELECT count(*) AS before FROM user_sessions \gset
SELECT test.shown(r) FROM session_switch_tenant(NULL, 'x') AS r;
SELECT test.shown(r) FROM session_switch_tenant('x', 'x') AS r;
SELECT test.shown(r) FROM session_switch_tenant('sm1_' || repeat('A', 64), 'x') AS r;
SELECT test.shown(r) FROM session_switch_tenant(test.change_char(:'c4_session_token', 68), 'x') AS r;
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE user_id = 'carol' AND revoked_at IS NULL;
SELECT test.shown(r) FROM session_switch_tenant(:'c4_session_token', 'x') AS r;
SELECT session_invalidate_all('bob');
SELECT test.shown(r) FROM session_switch_tenant(:'b3_session_token', 'x') AS r;
SELECT count(*) - :before AS more FROM user_sessions;

-- a session whose data does not open is none to go on from
SELECT session_id, session_token FROM session_create('dave') \gset d_
UPDATE user_sessions SET sealed_data = overlay(sealed_data PLACING '\xff' FROM 40) WHERE session_id = :'d_session_id';
CALL test.error(format('SELECT session_switch_tenant(%L, ''x'')', :'d_session_token'));

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
