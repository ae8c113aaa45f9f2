--
-- session_manager.shard: another server's buckets are refused, never "no session"
--
LOAD 'session_manager';
-- one user of each half
SELECT user_id AS low_user FROM (SELECT 'user' || i FROM generate_series(1, 100) AS i) AS u(user_id)
WHERE session_bucket(user_id) < 32768 LIMIT 1 \gset
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

\set ECHO none
SELECT test.configure('session_manager.shard') \gexec
\set ECHO all
SHOW session_manager.shard;
SELECT data FROM session_get(:'l_session_token');
SELECT data FROM session_get(:'h_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
