--
-- How session_get writes that a session was used, where the library is not
-- preloaded.  Where it is, a worker writes it; the TAP tests look at that.
--
SELECT current_setting('shared_preload_libraries') ~ 'session_manager' AS preloaded \gset
\if :preloaded
\quit
\endif
SELECT session_token, session_id FROM session_create('alice', '{"n": 1}', ip => '192.0.2.1', user_agent => 'one') \gset a_

-- Reading writes nothing until touch_interval has passed since the last use.
SELECT ctid AS before FROM user_sessions WHERE session_id = :'a_session_id' \gset
SELECT count(*) FROM generate_series(1, 10) AS i, session_get(:'a_session_token', '192.0.2.9', 'two', touch => i > 0);
SELECT ctid = :'before' AS unwritten, ip, user_agent FROM user_sessions WHERE session_id = :'a_session_id';
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '61 s' WHERE session_id = :'a_session_id';
SELECT ctid AS before FROM user_sessions WHERE session_id = :'a_session_id' \gset
SELECT count(*) FROM session_get(:'a_session_token', '192.0.2.9', 'two', touch => false);
SELECT ctid = :'before' AS unwritten, ip, user_agent FROM user_sessions WHERE session_id = :'a_session_id';
SELECT count(*) FROM session_get(:'a_session_token', '192.0.2.9', 'two', touch => NULL);
SELECT count(*) FROM session_get(:'a_session_token', '192.0.2.9', 'two');
SELECT ctid <> :'before' AS written, ip, user_agent, clock_timestamp() - last_seen_at < '1 min' AS seen
FROM user_sessions WHERE session_id = :'a_session_id';
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '61 s' WHERE session_id = :'a_session_id';
SELECT count(*) FROM session_get(:'a_session_token');	-- no address: the known one stays
SELECT ip, user_agent FROM user_sessions WHERE session_id = :'a_session_id';
SELECT data, version FROM session_get(:'a_session_token');	-- a touch is no new version
SELECT event FROM test.events(:'a_session_id');	-- and no event
-- a late touch never moves the time of last use back
UPDATE user_sessions SET last_seen_at = clock_timestamp() + interval '1 hour' WHERE session_id = :'a_session_id';
SELECT count(*) FROM session_get(:'a_session_token');
SELECT last_seen_at > clock_timestamp() AS kept FROM user_sessions WHERE session_id = :'a_session_id';
SET session_manager.touch_interval = 0;
SELECT session_token, session_id FROM session_create('touched') \gset t_
SELECT ctid AS before FROM user_sessions WHERE session_id = :'t_session_id' \gset
SELECT count(*) FROM session_get(:'t_session_token');
SELECT ctid <> :'before' AS written FROM user_sessions WHERE session_id = :'t_session_id';
RESET session_manager.touch_interval;

-- The first use of a rotated token is written at once.
SELECT * FROM session_create('bob') \gset b1_
SELECT session_token FROM session_refresh(:'b1_session_token', rotate => true) \gset b2_
SELECT successor_used_at IS NULL AS unused FROM user_sessions WHERE session_id = :'b1_session_id';
SELECT count(*) FROM session_get(:'b1_session_token');	-- the old one's use is none
SELECT successor_used_at IS NULL AS unused FROM user_sessions WHERE session_id = :'b1_session_id';
SELECT count(*) FROM session_get(:'b2_session_token');
SELECT successor_used_at IS NULL AS unused FROM user_sessions WHERE session_id = :'b1_session_id';
SELECT * FROM session_create('bob') \gset b1_
SELECT session_token FROM session_refresh(:'b1_session_token', rotate => true) \gset b2_
SELECT session_bind(:'b2_session_token');
SELECT successor_used_at IS NULL AS unused FROM user_sessions WHERE session_id = :'b1_session_id';

-- So is that a session is used by session_bind alone.
SELECT session_token, session_id FROM session_create('carol') \gset c_
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '61 s' WHERE session_id = :'c_session_id';
SELECT session_bind(:'c_session_token');
SELECT clock_timestamp() - last_seen_at < '1 min' AS seen FROM user_sessions WHERE session_id = :'c_session_id';

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
