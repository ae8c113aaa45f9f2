--
-- session_stats
--
-- Counters live in shared memory: without it there is no row, and nothing to
-- reset.  What each counts is for the TAP tests.
SELECT current_setting('shared_preload_libraries') ~ 'session_manager' AS preloaded \gset
\if :preloaded
SELECT session_stats_reset();
SELECT session_token FROM session_create('alice') \gset a_
SELECT count(*) FROM session_get(:'a_session_token');
SELECT count(*) FROM session_get('x');
SELECT sessions_created, gets_hit, gets_malformed, gets_unknown, stats_reset < clock_timestamp() AS reset FROM session_stats WHERE database_name = current_database();
SELECT session_invalidate(:'a_session_token');
SELECT invalidated_logout FROM session_stats WHERE database_name = current_database();
SELECT session_stats_reset();
SELECT sessions_created + gets_hit + gets_malformed + invalidated_logout AS sum FROM session_stats WHERE database_name = current_database();
SELECT session_erase('alice');
\else
SELECT count(*) FROM session_stats;
CALL test.error('SELECT session_stats_reset()');
\endif
