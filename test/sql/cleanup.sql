--
-- session_cleanup: dead sessions, partitions of the events, retention
--
SET TimeZone = 'UTC';
TRUNCATE session_events;

-- Due rows only: the dead go, the living are put where they are due next.
CREATE FUNCTION test.make_due(id uuid) RETURNS void
LANGUAGE sql AS $$ UPDATE public.user_sessions SET sweep_at = clock_timestamp() WHERE session_id = id; $$;
SELECT session_id, session_token FROM session_create('expired', ip => '192.0.2.1') \gset e_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'e_session_id';
SELECT session_id, session_token FROM session_create('expired-not-due') \gset n_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'n_session_id';
SELECT session_id, session_token FROM session_create('extended') \gset x_
SELECT session_id, session_token FROM session_create('fresh') \gset f_
SELECT session_id, session_token FROM session_create('revoked') \gset r_
SELECT session_invalidate(:'r_session_token');
SELECT session_id, session_token FROM session_create('revoked-over') \gset v_
SELECT session_invalidate(:'v_session_token');
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'v_session_id';
SELECT test.make_due(id) FROM unnest(ARRAY[:'e_session_id', :'x_session_id', :'r_session_id', :'v_session_id']::uuid[]) AS id;
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();
SELECT user_id, sweep_at = least(expires_at, absolute_expires_at) AS at_expiry FROM user_sessions ORDER BY user_id;
SELECT event, session_event_severity(event), user_id, ip, detail FROM session_events WHERE event IN ('expired', 'idle');
SELECT count(*) FROM session_get(:'x_session_token');
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();

-- Idle ones die early.
SET session_manager.idle_timeout = '1h';
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '2 h', sweep_at = clock_timestamp() WHERE session_id = :'f_session_id';
UPDATE user_sessions SET sweep_at = clock_timestamp() WHERE session_id = :'x_session_id';
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();
SELECT sweep_at = last_seen_at + interval '1 h' AS at_idle FROM user_sessions WHERE session_id = :'x_session_id';
SELECT event, user_id, detail FROM session_events WHERE event IN ('expired', 'idle') ORDER BY event_id;
RESET session_manager.idle_timeout;

-- What was revoked is kept while asked.
SET session_manager.revoked_retention = '1d';
SELECT session_id, session_token FROM session_create('kept') \gset k_
SELECT session_invalidate(:'k_session_token');
UPDATE user_sessions SET expires_at = clock_timestamp(), sweep_at = clock_timestamp() WHERE session_id = :'k_session_id';
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();
SELECT sweep_at - revoked_at AS kept FROM user_sessions WHERE session_id = :'k_session_id';
UPDATE user_sessions SET revoked_at = revoked_at - interval '1 d', sweep_at = clock_timestamp() WHERE session_id = :'k_session_id';
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();
RESET session_manager.revoked_retention;

-- Sessions under a revoked key are dead as well.
SELECT session_key_generate() AS key \gset
SELECT key_id AS active FROM session_keys() WHERE state = 'active' \gset
SELECT session_key_activate(:key);
SELECT session_id FROM session_create('keyless') \gset l_
SELECT session_key_activate(:active);
SELECT session_key_revoke(:key);
SELECT test.make_due(:'l_session_id');
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();

-- Batches: exactly as many rows as asked for
SELECT session_invalidate_everything() >= 0 AS ended;
TRUNCATE user_sessions;
SELECT count(*) FROM generate_series(1, 250) AS i, session_create('many' || i % 7);
UPDATE user_sessions SET expires_at = clock_timestamp(), sweep_at = clock_timestamp();
SELECT sessions_deleted FROM session_cleanup(100, 1);
SELECT sessions_deleted FROM session_cleanup(10, 3);
SELECT count(*) FROM user_sessions;
SET session_manager.sweep_batch = 50;
SELECT sessions_deleted FROM session_cleanup(max_batches => 1);
SELECT sessions_deleted FROM session_cleanup(50);
SELECT count(*) FROM user_sessions;
RESET session_manager.sweep_batch;
CALL test.error('SELECT session_cleanup(0)');
CALL test.error('SELECT session_cleanup(-1)');
CALL test.error('SELECT session_cleanup(10, -1)');
CALL test.error('SELECT session_cleanup(10, 0)');

--
-- Partitions
--

-- The calls above have made them, for now and ahead, without a gap; the
-- default partition is empty.
SELECT count(*) >= 2 AS some, min("from") <= now() AS covers_now, max("to") > now() + interval '1 day' AS ahead
FROM test.partition;
SELECT count(*) FROM (SELECT "to", lead("from") OVER (ORDER BY "from") AS next FROM test.partition) AS p WHERE "to" <> next;
SELECT count(*) FROM session_events_default;
SELECT partitions_created, partitions_dropped, events_dropped FROM session_cleanup();
SELECT count(*) FROM session_create('somebody');
SELECT tableoid::regclass = (SELECT name FROM test.partition WHERE now() >= "from" AND now() < "to") AS in_its_partition
FROM session_events WHERE user_id = 'somebody';

-- Each has the indexes that the default partition has, the same owner, and
-- is granted to nobody.
SELECT count(DISTINCT (c.relowner, c.relacl::text)) FROM pg_class AS c WHERE oid IN (SELECT name FROM test.partition) OR oid = 'session_events_default'::regclass;
SELECT count(*) = 3 * (SELECT count(*) FROM test.partition) AS three_each
FROM pg_index WHERE indrelid IN (SELECT name FROM test.partition);
SELECT DISTINCT regexp_replace(pg_get_indexdef(indexrelid), 'INDEX \S+ ON \S+', 'INDEX ... ON ...') AS index
FROM pg_index WHERE indrelid IN (SELECT name FROM test.partition) ORDER BY 1;

-- Events that no partition was ready for are moved out of the default one.
INSERT INTO session_events (at, user_id, event) VALUES
	(now() - interval '40 days', 'moved', 'created'), (now() - interval '80 days', 'moved', 'created');
SELECT count(*) FROM session_events_default;
SELECT events_dropped FROM session_cleanup();
SELECT count(*) FROM session_events_default;
SELECT count(*) FROM session_history(user_id => 'moved');
SELECT count(*) FROM (SELECT "to", lead("from") OVER (ORDER BY "from") AS next FROM test.partition) AS p WHERE "to" > next;

SELECT test.drop_partitions('-infinity');
DELETE FROM session_events;

-- What is past its retention goes, partitions whole and wherever they are kept.
DO $$
BEGIN
	EXECUTE format('CREATE TABLE test.past PARTITION OF session_events FOR VALUES FROM (%L) TO (%L)',
		now() - interval '200 days', now() - interval '91 days');
	EXECUTE format('CREATE TABLE test.partly_past PARTITION OF session_events FOR VALUES FROM (%L) TO (%L)',
		now() - interval '91 days', now() - interval '89 days');
END
$$;
INSERT INTO session_events (at, user_id, event) VALUES
	(now() - interval '400 days', 'old', 'in the default partition'),
	(now() - interval '100 days', 'old', 'in a partition that is past'), (now() - interval '99 days', 'old', 'in a partition that is past'),
	(now() - interval '90 days 1 hour', 'old', 'in a partition that is partly past');
SET session_manager.event_retention = 0;	-- for ever
SELECT events_dropped, partitions_dropped FROM session_cleanup();
RESET session_manager.event_retention;
SELECT events_dropped, partitions_dropped > 0 AS dropped FROM session_cleanup();
SELECT event FROM session_events WHERE user_id = 'old';
SELECT to_regclass('test.past') IS NULL AS dropped, to_regclass('test.partly_past') IS NOT NULL AS kept;
DROP TABLE test.partly_past;

-- Another span: new partitions fit beside those that are there.
SELECT test.drop_partitions('-infinity');
SET session_manager.event_partition = day;
SELECT partitions_created FROM session_cleanup();
SELECT "to" - "from" AS span FROM test.partition WHERE "to" > now() ORDER BY "from";
SELECT test.drop_partitions(now());
SET session_manager.event_partition = week;
SELECT partitions_created FROM session_cleanup();
SELECT test.drop_partitions(now());
SET session_manager.event_partition = month;
SELECT partitions_created FROM session_cleanup();
SELECT partitions_created FROM session_cleanup();
RESET session_manager.event_partition;
SELECT count(*) FROM test.partition WHERE now() >= "from" AND now() < "to";
SELECT count(*) FROM (SELECT "to", lead("from") OVER (ORDER BY "from") AS next FROM test.partition) AS p WHERE "to" <> next;

-- Partitions are no members of the extension: a dump carries them on their own.
SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND objid IN (SELECT name FROM test.partition);

-- Undone
SELECT test.drop_partitions(now());
BEGIN;
SELECT partitions_created FROM session_cleanup();
ROLLBACK;
SELECT partitions_created FROM session_cleanup();

DELETE FROM session_events;
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
