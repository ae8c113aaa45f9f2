--
-- session_history and the audit trail
--
SET TimeZone = 'UTC';
TRUNCATE session_events;
SELECT session_id, session_token FROM session_create('alice', ip => '192.0.2.1', user_agent => 'one', tenant_id => 'acme') \gset a_
SELECT version FROM session_update(:'a_session_token', '{"n": 1}');
SELECT status FROM session_refresh(:'a_session_token', ip => '192.0.2.2', user_agent => 'two');
SELECT session_token FROM session_refresh(:'a_session_token', rotate => true) \gset a_
SELECT session_token FROM session_elevate(:'a_session_token', '{"amr": ["otp"]}') \gset a_
SELECT session_bind('sm1_' || repeat('B', 64));
SELECT session_invalidate(:'a_session_token');
SELECT session_id AS b_session_id FROM session_create('bob') \gset

-- Newest first, by session, user, time, or all
SELECT event, user_id, tenant_id, ip, user_agent, detail, at <= clock_timestamp() AND at > clock_timestamp() - interval '1 min' AS now
FROM session_history(:'a_session_id');
SELECT event, session_id = :'b_session_id' AS bs FROM session_history(user_id => 'bob');
SELECT count(*) FROM session_history(:'a_session_id', 'bob');
SELECT count(*) FROM session_history(:'a_session_id', 'alice');
-- (a worker may be recording what a test before this one has left)
SELECT (SELECT array_agg(event_id) FROM session_history(max_rows => 3)) = ARRAY(SELECT event_id FROM session_events ORDER BY at DESC, event_id DESC LIMIT 3) AS newest;
SELECT event FROM session_history(since => clock_timestamp());
SELECT count(*) = (SELECT count(*) FROM session_events) AS "all" FROM session_history(since => clock_timestamp() - interval '1 hour');
SELECT bool_and((at, event_id) > next) AS descending
FROM (SELECT at, event_id, lead((at, event_id)) OVER () AS next FROM session_history()) AS h;
SELECT event, user_id, detail FROM session_history('04104104-1041-0410-4104-104104104104');
SELECT count(*) FROM session_history(user_id => 'nobody');
CALL test.error('SELECT session_history(max_rows => 0)');
CALL test.error('SELECT session_history(max_rows => -1)');
CALL test.error('SELECT session_history(max_rows => NULL)');

-- An event's time is the wall clock's.
BEGIN;
SELECT count(*) FROM (SELECT pg_sleep(0.01)) AS s;
SELECT session_id FROM session_create('carol') \gset c_
SELECT at > now() AS later FROM session_history(:'c_session_id');
ROLLBACK;

-- Severity of every type
SELECT event, session_event_severity(event)
FROM unnest(ARRAY['created', 'refreshed', 'rotated', 'updated', 'elevated', 'bind_failed', 'client_changed',
	'invalidated', 'evicted', 'expired', 'idle', 'token_reused', 'rejected', 'corrupt', 'erased',
	'new_device', 'token_guessing', 'key_added', 'key_activated', 'key_retired', 'key_revoked',
	'issuer_trusted', 'issuer_distrusted', 'no_such', '', 'CREATED', NULL]) AS event;

-- Where events are: before the first session_cleanup in the default partition
SELECT count(*) > 0 AS some FROM session_events;

-- Refusals are limited for each session and cause: noise hides no use of a
-- token that was replaced, and its event names whose session it is.
SELECT session_id, session_token FROM session_create('victim', tenant_id => 'acme') \gset v1_
SET session_manager.rotation_grace = 0;
SELECT session_token FROM session_refresh(:'v1_session_token', rotate => true) \gset v2_
SELECT count(*) FROM session_get(:'v2_session_token');
RESET session_manager.rotation_grace;
SELECT session_id, session_token FROM session_create('second') \gset w_
DELETE FROM session_events WHERE event = 'rejected';
SELECT clock_timestamp() AS began, coalesce(current_setting('test.one_in', true), '1') AS one_in \gset
SELECT count(g.session_id) FROM generate_series(1, 100) AS i,
	LATERAL (SELECT * FROM session_get('sm1_' || repeat('A', 64 + 0 * i))
		UNION ALL SELECT * FROM session_get(test.change_char(:'w_session_token', 66 + i % 3))
		UNION ALL SELECT * FROM session_get(:'v1_session_token', '192.0.2.66', 'thief')
		UNION ALL SELECT * FROM session_get(test.change_char(:'v1_session_token', 66 + i % 3))) AS g;
SELECT user_id, tenant_id, detail ->> 'cause' AS cause, max(ip) AS ip,
	count(*) BETWEEN 1 AND 2 + extract(epoch FROM clock_timestamp() - :'began') AS once_a_second
FROM session_events WHERE event = 'rejected' GROUP BY user_id, tenant_id, detail ->> 'cause' ORDER BY user_id, cause;
-- Guesses at more sessions than are told apart do not make an event each, and
-- hide none of the tokens that were replaced.
CREATE TABLE test.crowd AS
SELECT i, c.session_token FROM generate_series(1, 100) AS i, session_create('crowd', jsonb_build_object('i', i)) AS c;
SET session_manager.rotation_grace = 0;
SELECT count(g.session_id) AS used FROM test.crowd AS c, session_refresh(c.session_token, rotate => true) AS r, session_get(r.session_token) AS g;
RESET session_manager.rotation_grace;
SELECT count(g.session_id) FROM generate_series(1, 50, :one_in) AS round, test.crowd AS c,
	session_get(test.change_char(c.session_token, 66 + round % 3)) AS g;
SELECT count(g.session_id) FROM test.crowd AS c, session_get(c.session_token) AS g;
SELECT detail ->> 'cause' AS cause, count(*) > 0 AS recorded, count(*) < 2500 AS limited, count(DISTINCT session_id) = 100 AS every_session
FROM session_events WHERE event = 'rejected' AND user_id = 'crowd' AND detail ->> 'cause' = 'superseded' GROUP BY 1;
SELECT detail ->> 'cause' AS cause, count(*) > 0 AS recorded, count(*) < 2500 AS limited
FROM session_events WHERE event = 'rejected' AND user_id = 'crowd' AND detail ->> 'cause' = 'mismatch' GROUP BY 1;
-- a token that session_elevate replaced, at a refresh
SELECT session_id, session_token FROM session_create('stepper') \gset s1_
SELECT session_token FROM session_elevate(:'s1_session_token', '{}') \gset s2_
SELECT status FROM session_refresh(:'s1_session_token');
SELECT user_id, detail FROM session_events WHERE event = 'rejected' AND session_id = :'s1_session_id';

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
