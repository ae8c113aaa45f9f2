--
-- Ending sessions: one, a user's, a tenant's, all
--

-- By token: its user, once
\pset null (null)
SELECT session_id, session_token FROM session_create('alice', ip => '192.0.2.1') \gset a_
SELECT session_invalidate(:'a_session_token');
SELECT count(*) FROM session_get(:'a_session_token');
SELECT session_invalidate(:'a_session_token');
SELECT revoked_at IS NOT NULL AS revoked, revoked_reason FROM user_sessions WHERE session_id = :'a_session_id';
SELECT event, detail FROM test.events(:'a_session_id');
SELECT session_id, session_token FROM session_create('alice') \gset a_
SELECT session_invalidate(session_token_digest(:'a_session_token'), 'password changed');
SELECT revoked_reason FROM user_sessions WHERE session_id = :'a_session_id';
SELECT event, detail FROM test.events(:'a_session_id');
SELECT session_invalidate(NULL), session_invalidate('x'), session_invalidate('sm1_' || repeat('A', 64));
SELECT session_id, session_token FROM session_create('alice') \gset a_
SELECT session_invalidate(test.change_char(:'a_session_token', 68));
SELECT count(*) FROM session_get(:'a_session_token');
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'a_session_id';
SELECT session_invalidate(:'a_session_token');	-- was over already
-- logging out with a token that has been replaced ends the session, too
SELECT session_token FROM session_create('alice') \gset p1_
SELECT session_token FROM session_refresh(:'p1_session_token', rotate => true) \gset p2_
SELECT session_invalidate(:'p1_session_token');
SELECT count(*) FROM session_get(:'p2_session_token');
SELECT session_token FROM session_create('alice') \gset p1_
SELECT session_token FROM session_elevate(:'p1_session_token', '{}') \gset p2_
SELECT session_invalidate(:'p1_session_token');
SELECT count(*) FROM session_get(:'p2_session_token');
-- reasons
SELECT session_id, session_token FROM session_create('alice') \gset a_
CALL test.error(format('SELECT session_invalidate(%L, '''')', :'a_session_token'));
CALL test.error(format('SELECT session_invalidate(%L, repeat(''x'', 65))', :'a_session_token'));
CALL test.error(format('SELECT session_invalidate(%L, NULL)', :'a_session_token'));
SELECT session_invalidate(:'a_session_token', repeat('x', 64));

-- By id: the administrator's, or the user's own device list
SELECT session_id, session_token FROM session_create('bob') \gset b_
SELECT session_invalidate_id(:'b_session_id', 'alice');
SELECT count(*) FROM session_get(:'b_session_token');
SELECT session_invalidate_id(:'b_session_id', 'bob');
SELECT session_invalidate_id(:'b_session_id', 'bob');
SELECT session_invalidate_id(:'b_session_id');
SELECT count(*) FROM session_get(:'b_session_token');
SELECT revoked_reason FROM user_sessions WHERE session_id = :'b_session_id';
SELECT session_invalidate_id(NULL), session_invalidate_id('00000000-0000-0000-0000-000000000000'), session_invalidate_id(NULL, 'bob');
SELECT session_id, session_token FROM session_create('bob') \gset b_
SELECT session_invalidate_id(:'b_session_id', reason => 'stolen device');
SELECT event, detail FROM test.events(:'b_session_id');
CALL test.error($$SELECT session_invalidate_id('00000000-0000-0000-0000-000000000000', reason => '')$$);

-- All of a user's, in a tenant, but for one
SELECT session_token FROM session_create('carol') \gset c1_
SELECT session_token FROM session_create('carol', tenant_id => 'acme') \gset c2_
SELECT session_token FROM session_create('carol', tenant_id => 'acme') \gset c3_
SELECT session_id, session_token FROM session_create('carol') \gset c4_
SELECT session_token FROM session_create('carol2') \gset c5_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'c4_session_id';
SELECT session_invalidate_all('carol', tenant_id => 'acme', except_token => :'c2_session_token');
SELECT session_active_count(user_id => 'carol');
SELECT count(*) FROM session_get(:'c2_session_token');
SELECT session_invalidate_all('carol', session_token_digest(:'c1_session_token'));
SELECT count(*) FROM session_get(:'c1_session_token');
-- a token of no live session of the user spares nothing
SELECT session_invalidate_all('carol', :'c5_session_token');
SELECT count(*) FROM session_get(:'c1_session_token');
SELECT count(*) FROM session_get(:'c5_session_token');
SELECT session_token FROM session_create('carol') \gset c1_
SELECT session_invalidate_all('carol', test.change_char(:'c1_session_token', 68));
SELECT session_token FROM session_create('carol') \gset c1_
SELECT session_invalidate_all('carol', 'x', reason => 'compromised');
SELECT session_invalidate_all('carol'), session_invalidate_all('nobody'), session_invalidate_all('carol', tenant_id => 'none');
SELECT revoked_reason, count(*) FROM user_sessions WHERE user_id = 'carol' GROUP BY 1 ORDER BY 1;
SELECT event, detail, count(*) FROM session_events WHERE user_id = 'carol' AND event = 'invalidated' GROUP BY 1, 2 ORDER BY detail::text COLLATE "C";
CALL test.error('SELECT session_invalidate_all(NULL)');
CALL test.error($$SELECT session_invalidate_all('')$$);
CALL test.error($$SELECT session_invalidate_all('carol', reason => '')$$);
-- a session of the previous token in its grace can be the one that is spared
SELECT session_token FROM session_create('carol') \gset p1_
SELECT session_token FROM session_refresh(:'p1_session_token', rotate => true) \gset p2_
SELECT session_invalidate_all('carol', :'p1_session_token');
SELECT count(*) FROM session_get(:'p2_session_token');
SELECT session_invalidate_all('carol');

-- A tenant's
SELECT count(*) FROM generate_series(1, 5) AS i, session_create('user' || i, tenant_id => 'globex');
SELECT session_token FROM session_create('user1', tenant_id => 'initech') \gset t_
SELECT session_token FROM session_create('user1') \gset n_
SELECT session_invalidate_tenant('globex', 'contract ended'), session_invalidate_tenant('globex'), session_invalidate_tenant('none');
SELECT count(*) FROM session_get(:'t_session_token');
SELECT count(*) FROM session_get(:'n_session_token');
SELECT event, detail, count(*) FROM session_events WHERE tenant_id = 'globex' GROUP BY 1, 2 ORDER BY 1;
CALL test.error('SELECT session_invalidate_tenant(NULL)');
CALL test.error($$SELECT session_invalidate_tenant('')$$);
CALL test.error($$SELECT session_invalidate_tenant('globex', '')$$);

-- All there are
SELECT session_active_count() AS live \gset
SELECT session_invalidate_everything('restore') = :live AS as_counted, session_invalidate_everything();
SELECT session_active_count();
SELECT count(*) FROM session_get(:'t_session_token');
CALL test.error($$SELECT session_invalidate_everything(repeat('x', 65))$$);

-- Undone
SELECT session_token FROM session_create('dave') \gset d_
BEGIN;
SELECT session_invalidate(:'d_session_token');
SELECT count(*) FROM session_get(:'d_session_token');
ROLLBACK;
SELECT count(*) FROM session_get(:'d_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
