--
-- session_activity, session_critical_events and session_top
--
SET TimeZone = 'Asia/Kathmandu';
TRUNCATE user_sessions, session_events, session_activity;
SELECT * FROM session_activity();
SELECT * FROM session_critical_events();
SELECT * FROM session_top();

-- What session_activity is to return: events since the beginning of an hour in UTC
CREATE FUNCTION test.activity(since timestamptz, tenant text)
RETURNS TABLE (hour timestamptz, event text, reason text, events bigint)
LANGUAGE sql AS $$
	SELECT date_trunc('hour', at, 'UTC'), event, coalesce(detail ->> 'reason', detail ->> 'cause'),
		sum(1 + coalesce((detail ->> 'suppressed')::bigint, 0))::bigint
	FROM session_events
	WHERE at >= date_trunc('hour', since, 'UTC') AND (tenant IS NULL OR tenant_id = tenant)
	GROUP BY 1, 2, 3
$$;
-- By how many rows the two differ, and how many there are
CREATE FUNCTION test.activity_differs(since timestamptz, tenant text, OUT wrong bigint, OUT rows bigint)
LANGUAGE sql AS $$
	SELECT count(*) FILTER (WHERE a.events IS DISTINCT FROM t.events), count(t.*)
	FROM session_activity(since, tenant) a
	FULL JOIN test.activity(since, tenant) t ON (a.hour, a.event) = (t.hour, t.event) AND a.reason IS NOT DISTINCT FROM t.reason
$$;

-- Maintenance until a condition holds: a worker may be at it
CREATE PROCEDURE test.maintain_until(condition text)
LANGUAGE plpgsql AS $$
DECLARE
	held boolean;
	deadline CONSTANT timestamptz := clock_timestamp() + interval '60 s';
BEGIN
	LOOP
		PERFORM session_cleanup();
		EXECUTE 'SELECT ' || condition INTO held;
		EXIT WHEN held;
		IF clock_timestamp() > deadline THEN
			RAISE 'never: %', condition;
		END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;

-- Whether all is counted but the last minutes: the last event before them may be as old as 10 minutes and the 7 between two
CREATE FUNCTION test.all_counted() RETURNS boolean
LANGUAGE sql AS $$
	SELECT count(*) > 200 AND max(until) > now() - interval '18 min' FROM session_activity
$$;

-- Two days of events, and some of years before
INSERT INTO session_events (at, session_id, user_id, tenant_id, event, detail)
SELECT clock_timestamp() - i * interval '7 min', gen_random_uuid(), 'u' || i % 7, CASE WHEN i % 3 > 0 THEN 'tenant ' || i % 3 END,
	CASE i % 5 WHEN 0 THEN 'created' WHEN 1 THEN 'refreshed' ELSE 'invalidated' END,
	CASE WHEN i % 5 > 1 THEN jsonb_build_object('reason', CASE i % 2 WHEN 0 THEN 'logout' ELSE 'admin' END) END
FROM generate_series(1, 411) AS i;
INSERT INTO session_events (at, event, detail) VALUES
	(clock_timestamp() - interval '3 hours', 'rejected', '{"cause": "unknown", "suppressed": 41}'),
	(clock_timestamp() - interval '2 min', 'rejected', '{"cause": "unknown", "suppressed": 41}'),
	(clock_timestamp() - interval '2 min', 'rejected', '{"cause": "unknown", "suppressed": "41"}'),
	(clock_timestamp() - interval '2 min', 'rejected', '{"cause": "mismatch"}'),
	('-infinity', 'created', NULL), ('1999-12-31', 'created', NULL);
UPDATE session_events SET detail = detail - 'suppressed' WHERE jsonb_typeof(detail -> 'suppressed') = 'string';
SELECT event, reason, sum(events) FROM session_activity(now() - interval '1 day') WHERE event = 'rejected' GROUP BY 1, 2 ORDER BY 1, 2;

-- Nothing has been counted, then everything but the last minutes: the same
CREATE VIEW test.activities AS
SELECT since, tenant, wrong, rows > 4 AS enough
FROM unnest(ARRAY[interval '0', '1 hour', '1 day', '40 days']) AS since, unnest(ARRAY[NULL, 'tenant 1', 'tenant 2']) AS tenant,
	test.activity_differs(now() - since, tenant);
SELECT since, tenant, wrong, enough OR since < '1 day' AS enough FROM test.activities ORDER BY since, tenant;
CALL test.maintain_until('test.all_counted()');
SELECT count(*) > 200 AS counted, max(until) > now() - interval '18 min' AND max(until) < now() - interval '4 min' AS recently,
	count(DISTINCT tenant_id COLLATE "C") AS tenants
FROM session_activity;
SELECT since, tenant, wrong FROM test.activities WHERE wrong > 0;
SELECT count(*) FROM session_cleanup();
INSERT INTO session_events (at, tenant_id, event) VALUES (clock_timestamp(), 'tenant 1', 'created');
SELECT since, tenant, wrong FROM test.activities WHERE wrong > 0;

-- By default the last day.  An hour ends at its end, and the last one now.
SELECT bool_and(hour > now() - interval '25 hours') AS last_day, max(until) <= clock_timestamp() AS until_now,
	max(until) > now() - interval '1 hour' AS recently, bool_and(hour = date_trunc('hour', hour, 'UTC')) AS hours,
	bool_and(until = hour + interval '1 hour') FILTER (WHERE hour < now() - interval '1 hour') AS whole
FROM session_activity();
SELECT (SELECT sum(events) FROM session_activity(NULL)) = (SELECT sum(events) FROM session_activity()) AS "null is the default";
SELECT count(*) FROM session_activity(tenant_id => 'nobody');
SELECT count(*) FROM session_activity('infinity');
SELECT count(*) > 100 AS "all" FROM session_activity('-infinity');
CALL test.error($$SELECT session_activity(tenant_id => '')$$);
CALL test.error($$SELECT session_activity(tenant_id => repeat('x', 10000))$$);

-- What has been counted can be lost, and is counted again
DELETE FROM session_activity;
SELECT since, tenant, wrong FROM test.activities WHERE wrong > 0;
CALL test.maintain_until('test.all_counted()');
SELECT since, tenant, wrong FROM test.activities WHERE wrong > 0;
SELECT count(*) > 200 AS counted FROM session_activity;

-- A time ahead, from a clock that has been set back, keeps nothing from being counted
INSERT INTO session_activity VALUES ('', now() + interval '1 year', 'created', '', 7, now() + interval '1 year');
CALL test.maintain_until($$NOT EXISTS (SELECT FROM session_activity WHERE hour > now())$$);
SELECT count(*) FROM session_activity WHERE hour > now();

-- What is past retention goes
INSERT INTO session_activity VALUES ('', '2020-01-01', 'created', '', 7, '2020-01-01 01:00');
CALL test.maintain_until($$NOT EXISTS (SELECT FROM session_activity WHERE hour < now() - interval '100 days')$$);
SELECT count(*) FROM session_activity WHERE hour < now() - interval '100 days';

-- At REPEATABLE READ nothing is counted
BEGIN ISOLATION LEVEL REPEATABLE READ;
LOCK TABLE session_activity IN SHARE ROW EXCLUSIVE MODE;
DELETE FROM session_activity;
SELECT count(*) FROM session_cleanup();
SELECT count(*) FROM session_activity;
ROLLBACK;

-- The newest critical events, none of which has been counted, and then all but the first.  One says that
-- thousands like it were suppressed, and others that were counted have been deleted: older ones are found behind both.
INSERT INTO session_events (at, user_id, tenant_id, event, detail)
SELECT clock_timestamp() - i * interval '1 hour', 'u' || i, CASE WHEN i % 2 = 0 THEN 'tenant 2' END,
	(ARRAY['token_reused', 'corrupt', 'key_revoked', 'device_proof_failed'])[1 + i % 4],
	CASE WHEN i IN (3, 6) THEN '{"cause": "proof_missing", "suppressed": 5000}'::jsonb END
FROM generate_series(1, 40) AS i;
INSERT INTO session_events (at, user_id, tenant_id, event)
SELECT clock_timestamp() - interval '4.5 hours', 'deleted', 'tenant 2', 'corrupt' FROM generate_series(1, 50);
CREATE VIEW test.newest AS
SELECT n, t, (SELECT array_agg(event_id) FROM session_critical_events(n, t)) IS NOT DISTINCT FROM (SELECT array_agg(event_id) FROM (
	SELECT event_id FROM session_events WHERE session_event_severity(event) = 'critical' AND (t IS NULL OR tenant_id = t)
	ORDER BY at DESC, event_id DESC LIMIT n) AS e) AS same
FROM (VALUES (1), (5), (19), (20), (21), (1000)) AS v (n), (VALUES (NULL), ('tenant 1'), ('tenant 2')) AS w (t);
DELETE FROM session_activity;
SELECT * FROM test.newest WHERE NOT same;
CALL test.maintain_until('test.all_counted()');
INSERT INTO session_events (at, user_id, event) VALUES (clock_timestamp(), 'new', 'corrupt'), (clock_timestamp() - interval '1 min', 'new', 'corrupt');
SELECT * FROM test.newest WHERE NOT same;
DELETE FROM session_events WHERE user_id = 'deleted';
SELECT * FROM test.newest WHERE NOT same;
SELECT event, user_id, tenant_id FROM session_critical_events(5);
SELECT event, user_id, tenant_id FROM session_critical_events(3, 'tenant 2');
SELECT count(*) FROM session_critical_events();
SELECT count(*), bool_and(session_event_severity(event) = 'critical') FROM session_critical_events(1000);
SELECT count(*) FROM session_critical_events(tenant_id => 'nobody');
CALL test.error($$SELECT session_critical_events(0)$$);
CALL test.error($$SELECT session_critical_events(NULL)$$);
CALL test.error($$SELECT session_critical_events(tenant_id => '')$$);
-- The events of the hours that have them are read, of two days about 7 in 411, and those that are not counted
CREATE FUNCTION test.critical_read() RETURNS bigint
LANGUAGE sql AS $$
	SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_user_tables
	WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'session_events'::regclass)
$$;
BEGIN;
SELECT test.critical_read() AS before \gset
SELECT count(*) FROM session_critical_events(5);
SELECT test.critical_read() - :before BETWEEN 5 AND 80 AS few;
COMMIT;

-- Who has the most sessions
SELECT count(session_id) FROM (SELECT (session_create(u, tenant_id => t)).session_id
	FROM (VALUES ('a', 4, NULL), ('b', 2, 'acme'), ('b', 3, 'globex'), ('c', 1, 'acme'), ('d', 1, 'globex')) AS v (u, n, t), generate_series(1, n)) AS s;
UPDATE user_sessions SET last_seen_at = now() + interval '1 min' WHERE user_id = 'b' AND tenant_id = 'globex';
SELECT user_id, sessions, last_seen_at > now() AS later FROM session_top();
SELECT user_id, sessions, last_seen_at > now() AS later FROM session_top(1);
SELECT user_id, sessions, last_seen_at > now() AS later FROM session_top(tenant_id => 'acme');
SELECT * FROM session_top(5, 'nobody');
CALL test.error($$SELECT session_top(0)$$);
CALL test.error($$SELECT session_top(tenant_id => '')$$);

-- Who may call what: who watches is told of no user
CREATE ROLE regress_watch;
SELECT session_grant('regress_watch', 'monitor');
SELECT f, has_function_privilege('regress_watch', f, 'execute') AS may
FROM unnest(ARRAY['session_activity(timestamptz, text)', 'session_critical_events(integer, text)', 'session_top(integer, text)']) AS f;
SET ROLE regress_watch;
SELECT count(*) > 100 AS some FROM session_activity('-infinity');
SELECT FROM session_top();
SELECT events FROM session_activity;
RESET ROLE;
SELECT session_revoke('regress_watch', 'monitor');
DROP OWNED BY regress_watch;
DROP ROLE regress_watch;
DROP VIEW test.newest, test.activities;
TRUNCATE user_sessions, session_events, session_activity;
