--
-- session_manager.max_sessions_per_user
--
LOAD 'session_manager';
SET session_manager.max_sessions_per_user = 2;
SHOW session_manager.on_limit;

-- The oldest ends.
SELECT session_id, session_token FROM test.login('alice', 'd1') \gset d1_
SELECT session_id, session_token FROM test.login('alice', 'd2') \gset d2_
SELECT session_token FROM test.login('bob', 'd1') \gset b_
SELECT session_id, session_token FROM test.login('alice', 'd3') \gset d3_
SELECT user_agent FROM session_list('alice');
SELECT user_agent, ended_reason FROM session_list('alice', include_ended => true);
SELECT session_status(:'d1_session_token');
SELECT event, detail, session_event_severity(event) FROM test.events(:'d1_session_id');
SELECT count(*) FROM session_get(:'b_session_token');
-- those that are over do not count
SELECT session_invalidate(:'d2_session_token');
SELECT session_id, session_token FROM test.login('alice', 'd4') \gset d4_
SELECT user_agent FROM session_list('alice');
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'d3_session_id';
SELECT session_id FROM test.login('alice', 'd5') \gset d5_
SELECT user_agent FROM session_list('alice');
-- oldest by login, not by use
SELECT status FROM session_refresh(:'d4_session_token');
SELECT count(*) FROM test.login('alice', 'd6');
SELECT user_agent FROM session_list('alice');
-- a limit lowered later: the next login brings the user within it
SET session_manager.max_sessions_per_user = 0;
SELECT count(*) FROM generate_series(7, 9) AS i, test.login('alice', 'd' || i);
SELECT count(*) FROM session_list('alice');
SET session_manager.max_sessions_per_user = 3;
SELECT count(*) FROM test.login('alice', 'd10');
SELECT user_agent FROM session_list('alice');

-- Or the login is refused.
SET session_manager.on_limit = deny;
SELECT count(*) AS before FROM user_sessions \gset
CALL test.error($$SELECT session_create('alice')$$);
SELECT count(*) - :before AS more FROM user_sessions;
SELECT count(*) FROM session_create('carol');
SELECT session_invalidate_all('alice');
SELECT count(*) FROM generate_series(1, 3) AS i, session_create('alice', jsonb_build_object('i', i));
CALL test.error($$SELECT session_create('alice')$$);
-- tenants share the user's limit
CALL test.error($$SELECT session_create('alice', tenant_id => 'acme')$$);
SELECT session_active_count(user_id => 'alice');
-- undone logins do not count
SELECT session_invalidate_all('alice');
BEGIN;
SELECT count(*) FROM generate_series(1, 3) AS i, session_create('alice', jsonb_build_object('i', i));
ROLLBACK;
SELECT count(*) FROM generate_series(1, 3) AS i, session_create('alice', jsonb_build_object('i', i));
CALL test.error($$SELECT session_create('alice')$$);
RESET session_manager.on_limit;
RESET session_manager.max_sessions_per_user;
SELECT count(*) FROM session_create('alice');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
