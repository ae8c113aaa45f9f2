--
-- session_manager.shard: another server's buckets are refused, never "no session"
--
LOAD 'session_manager';
-- one user of each half
SELECT user_id AS low_user FROM (SELECT 'user' || i FROM generate_series(1, 100) AS i) AS u(user_id)
WHERE session_bucket(user_id) < 32768 LIMIT 1 \gset
SELECT user_id AS other_low_user FROM (SELECT 'user' || i FROM generate_series(1, 100) AS i) AS u(user_id)
WHERE session_bucket(user_id) < 32768 OFFSET 1 LIMIT 1 \gset
SELECT user_id AS high_user FROM (SELECT 'user' || i FROM generate_series(1, 100) AS i) AS u(user_id)
WHERE session_bucket(user_id) >= 32768 LIMIT 1 \gset
SELECT session_id, session_token FROM session_create(:'low_user', '{"half": 1}') \gset l_
SELECT session_id, session_token FROM session_create(:'high_user', '{"half": 2}') \gset h_

\set ECHO none
SELECT test.configure('session_manager.shard', '1/2') \gexec
\set ECHO all
SHOW session_manager.shard;
SELECT data FROM session_get(:'l_session_token');
SELECT count(*) FROM session_create(:'low_user');
CALL test.error(format('SELECT session_create(%L)', :'high_user'));
CALL test.error(format('SELECT session_get(%L)', :'h_session_token'));
CALL test.error(format('SELECT session_get(%L)', session_token_digest(:'h_session_token')));
CALL test.error(format('SELECT session_update(%L, ''{}'')', :'h_session_token'));
CALL test.error(format('SELECT session_refresh(%L)', :'h_session_token'));
CALL test.error(format('SELECT session_elevate(%L, ''{}'')', :'h_session_token'));
CALL test.error(format('SELECT session_switch_tenant(%L, ''x'')', :'h_session_token'));
CALL test.error(format('SELECT session_invalidate(%L)', :'h_session_token'));
CALL test.error(format('SELECT session_invalidate_id(%L)', :'h_session_id'));
CALL test.error(format('SELECT session_invalidate_all(%L)', :'high_user'));
CALL test.error(format('SELECT session_update_user(%L, ''{}'')', :'high_user'));
CALL test.error(format('SELECT session_list(%L)', :'high_user'));
CALL test.error(format('SELECT session_bind(%L)', :'h_session_token'));
CALL test.error(format('SELECT session_status(%L)', :'h_session_token'));
CALL test.error(format('SELECT session_end_reason(%L)', :'h_session_token'));
CALL test.error(format('SELECT session_export(%L)', :'high_user'));
CALL test.error(format('SELECT session_erase(%L)', :'high_user'));
CALL test.error(format('SELECT session_history(user_id => %L)', :'high_user'));
CALL test.error(format('SELECT session_history(%L)', :'h_session_id'));
CALL test.error(format('SELECT session_active_count(user_id => %L)', :'high_user'));
-- what is no token has no bucket
SELECT * FROM session_get('x');
SELECT * FROM session_get(NULL);
-- buckets and digests are computed anywhere
SELECT session_bucket(:'h_session_id'::uuid) >= 32768 AS other, session_token_digest(:'h_session_token') IS NOT NULL AS digest;

\set ECHO none
SELECT test.configure('session_manager.shard', '2/2') \gexec
\set ECHO all
SELECT data FROM session_get(:'h_session_token');
CALL test.error(format('SELECT session_get(%L)', :'l_session_token'));
-- a session id with a bucket at each edge of a part
\set ECHO none
SELECT test.configure('session_manager.shard', '2/3') \gexec
\set ECHO all
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-000000005555')$$);
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-000000005556')$$);
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-00000000aaaa')$$);
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-00000000aaab')$$);

-- a list of shares, of which each is one way or the other
\set ECHO none
SELECT test.configure('session_manager.shard', '1/4, 16384-21844,21846-21846 , 4/4') \gexec
\set ECHO all
SHOW session_manager.shard;
SELECT value FROM session_info() WHERE key = 'shard';
SELECT session_invalidate_id('00000000-0000-7000-8000-000000000000') AS of_first, session_invalidate_id('00000000-0000-7000-8000-000000005554') AS of_second,
  session_invalidate_id('00000000-0000-7000-8000-000000005556') AS of_third, session_invalidate_id('00000000-0000-7000-8000-00000000ffff') AS of_last;
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-000000005555')$$);
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-000000005557')$$);
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-00000000bfff')$$);
-- each of 65536 parts is a bucket
\set ECHO none
SELECT test.configure('session_manager.shard', '1/65536,65536/65536') \gexec
\set ECHO all
SELECT session_invalidate_id('00000000-0000-7000-8000-000000000000') AS of_first, session_invalidate_id('00000000-0000-7000-8000-00000000ffff') AS of_last;
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-000000000001')$$);
CALL test.error($$SELECT session_invalidate_id('00000000-0000-7000-8000-00000000fffe')$$);

-- a server that holds nothing
\set ECHO none
SELECT test.configure('session_manager.shard', 'none') \gexec
\set ECHO all
CALL test.error(format('SELECT session_get(%L)', :'l_session_token'));
CALL test.error(format('SELECT session_get(%L)', :'h_session_token'));

-- cleanup leaves to the other server what it holds
\set ECHO none
SELECT test.configure('session_manager.shard') \gexec
\set ECHO all
SELECT session_id AS ended FROM session_create(:'high_user', ttl => '1 second') \gset
\set ECHO none
SELECT test.configure('session_manager.shard', '1/2') \gexec
\set ECHO all
SELECT pg_sleep_until(expires_at) FROM user_sessions WHERE session_id = :'ended';
SELECT count(*) FROM session_cleanup();
SELECT sweep_at > now() AS put_off FROM user_sessions WHERE session_id = :'ended';
UPDATE user_sessions SET sweep_at = expires_at WHERE session_id = :'ended';
\set ECHO none
SELECT test.configure('session_manager.shard') \gexec
\set ECHO all
SELECT count(*) FROM session_cleanup();
SELECT count(*) FROM user_sessions WHERE session_id = :'ended';

-- in a session in which somebody acts as a user, that person's session must be here too
\set ECHO none
SELECT test.configure('session_manager.shard') \gexec
\set ECHO all
SELECT session_token AS acting FROM session_create(:'low_user', actor_token => :'h_session_token') \gset
SELECT session_token AS acting_here FROM session_create(:'other_low_user', actor_token => :'l_session_token') \gset
SELECT count(*) FROM session_get(:'acting');
\set ECHO none
SELECT test.configure('session_manager.shard', '1/2') \gexec
\set ECHO all
SELECT count(*) FROM session_get(:'acting');
SELECT count(*) FROM session_get(:'acting_here');
CALL test.error(format('SELECT session_create(%L, actor_token => %L)', :'low_user', :'h_session_token'));

\set ECHO none
SELECT test.configure('session_manager.shard') \gexec
\set ECHO all
SHOW session_manager.shard;
SELECT data FROM session_get(:'l_session_token');
SELECT data FROM session_get(:'h_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
