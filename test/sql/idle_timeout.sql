--
-- An idle timeout of a session's own
--
SET TimeZone = 'UTC';
LOAD 'session_manager';
-- A session that has not been used for so long, which is then undone; what
-- records a use, which is not, only where there is none
CREATE FUNCTION test.unused(id uuid, token text, since interval) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	UPDATE public.user_sessions SET last_seen_at = clock_timestamp() - since WHERE session_id = id;
	result := concat_ws(' ', session_status(token), coalesce(session_end_reason(token), '-'),
		(SELECT count(*) FROM session_get(token, touch => false)),
		CASE WHEN session_status(token) <> 'active' THEN session_bind(token) END,
		(SELECT status FROM session_refresh(token)));
	RAISE SQLSTATE 'OK000';
EXCEPTION WHEN SQLSTATE 'OK000' THEN
	RETURN result;
END
$$;

SELECT * FROM session_create('alice', idle_timeout => '15 min') \gset a_
SELECT * FROM session_create('alice') \gset b_
SELECT idle_timeout, sweep_at - created_at AS sweep FROM user_sessions WHERE user_id = 'alice' ORDER BY created_at;
SELECT idle_timeout FROM session_list('alice');
SELECT since, test.unused(:'a_session_id', :'a_session_token', since) AS own, test.unused(:'b_session_id', :'b_session_token', since) AS none
FROM unnest('{14 min,16 min,1 hour}'::interval[]) AS since;
-- the shorter one of both counts
SET session_manager.idle_timeout = '30min';
SELECT since, test.unused(:'a_session_id', :'a_session_token', since) AS own, test.unused(:'b_session_id', :'b_session_token', since) AS none
FROM unnest('{14 min,16 min,1 hour}'::interval[]) AS since;
SELECT idle_timeout FROM session_list('alice');
SET session_manager.idle_timeout = '5min';
SELECT since, test.unused(:'a_session_id', :'a_session_token', since) AS own, test.unused(:'b_session_id', :'b_session_token', since) AS none
FROM unnest('{4 min,6 min}'::interval[]) AS since;
SELECT idle_timeout FROM session_list('alice');
RESET session_manager.idle_timeout;

-- A use is recorded after half of it at the latest.
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '8 min' WHERE user_id = 'alice';
SET session_manager.touch_interval = '1h';
SELECT clock_timestamp() - last_seen_at < '1 min' AS recorded FROM session_get(:'a_session_token');
SELECT clock_timestamp() - last_seen_at < '1 min' AS recorded FROM session_get(:'b_session_token');
RESET session_manager.touch_interval;

-- Everything that goes on with a session keeps it.
SELECT session_token FROM session_refresh(:'a_session_token', rotate => true) \gset a2_
SELECT session_token FROM session_elevate(:'a2_session_token', '{}') \gset a3_
SELECT version FROM session_update(:'a3_session_token', '{"n": 1}');
SELECT session_id, session_token FROM session_switch_tenant(:'a3_session_token', 'acme') \gset a4_
SELECT tenant_id, idle_timeout FROM session_list('alice');
SELECT test.unused(:'a4_session_id', :'a4_session_token', '16 min');

-- Cleanup
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '16 min', sweep_at = now() WHERE user_id = 'alice' AND revoked_at IS NULL;
SELECT ended_at - last_seen_at AS after, ended_reason FROM session_list('alice', include_ended => true) WHERE ended_reason IS DISTINCT FROM 'tenant_switched';
SELECT session_active_count(user_id => 'alice');
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();
SELECT event FROM test.events(:'a4_session_id');

-- What is none
CALL test.error($$SELECT session_create('alice', idle_timeout => '0')$$);
CALL test.error($$SELECT session_create('alice', idle_timeout => '-1 s')$$);
CALL test.error($$SELECT session_create('alice', idle_timeout => '7 days 0.000001 seconds')$$);
CALL test.error($$SELECT session_create('alice', idle_timeout => '170000000 years')$$);
SELECT count(*) FROM session_create('alice', idle_timeout => '7 days');
SELECT count(*) FROM session_create('alice', idle_timeout => '1 microsecond');
SET session_manager.idle_timeout = '30min';
CALL test.error($$SELECT session_create('alice', idle_timeout => '30 min 1 microsecond')$$);
SELECT count(*) FROM session_create('alice', idle_timeout => '30 min');
RESET session_manager.idle_timeout;

-- Nobody who writes the table without the key changes it.
SELECT session_id, session_token FROM session_create('alice', idle_timeout => '15 min') \gset a_
SELECT session_id, session_token FROM session_create('alice') \gset b_
BEGIN;
UPDATE user_sessions SET idle_timeout = idle_timeout + interval '1 microsecond' WHERE session_id = :'a_session_id';
SELECT count(*) FROM session_get(:'a_session_token');
UPDATE user_sessions SET idle_timeout = NULL WHERE session_id = :'a_session_id';
SELECT count(*) FROM session_get(:'a_session_token');
UPDATE user_sessions SET idle_timeout = '15 min' WHERE session_id = :'a_session_id';
SELECT count(*) FROM session_get(:'a_session_token');
UPDATE user_sessions SET idle_timeout = '1 microsecond' WHERE session_id = :'b_session_id';
SELECT count(*) FROM session_get(:'b_session_token');
UPDATE user_sessions SET idle_timeout = '1 year' WHERE session_id = :'b_session_id';
SELECT count(*) FROM session_get(:'b_session_token');
ROLLBACK;

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
