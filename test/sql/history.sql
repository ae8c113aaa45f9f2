--
-- session_history reads the rows it returns and hardly any others
--
SET TimeZone = 'UTC';

-- Events of four months, which no worker drops for their age, and some that wait
-- in the default partition: one user all over, one only in the oldest month, one
-- that is rare, many others.
TRUNCATE session_events;
DO $$
BEGIN
	FOR m IN 1..4 LOOP
		EXECUTE format('CREATE TABLE test.history_%s (LIKE session_events, PRIMARY KEY (event_id))', m);
		EXECUTE format('CREATE INDEX ON test.history_%s (at)', m);
		EXECUTE format('CREATE INDEX ON test.history_%s (user_id, at)', m);
		EXECUTE format('CREATE INDEX ON test.history_%s (session_id, at)', m);
		EXECUTE format('ALTER TABLE session_events ATTACH PARTITION test.history_%s FOR VALUES FROM (%L) TO (%L)',
			m, make_date(2101, m, 1), make_date(2101, m + 1, 1));
	END LOOP;
END
$$;
INSERT INTO session_events (at, session_id, user_id, event)
SELECT timestamptz '2101-05-10' - i * interval '5 min',
	md5((i % 600)::text)::uuid,
	CASE WHEN i % 4 = 0 THEN 'big' WHEN i > 30000 THEN 'oldie' WHEN i % 9999 = 1 THEN 'few' ELSE 'u' || i % 1000 END,
	'refreshed'
FROM generate_series(1, 36000) AS i;
SELECT tableoid::regclass, count(*) FROM session_events WHERE at > '2101-01-01' GROUP BY 1 ORDER BY 1;

-- How many events this backend has read
CREATE FUNCTION test.events_read() RETURNS bigint
LANGUAGE sql AS $$
	SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
	WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'session_events'::regclass)
$$;

-- Does session_history return what SQL does, having read little more?
CREATE FUNCTION test.history(id uuid, who text, since timestamptz,
	OUT events integer, OUT same boolean, OUT little boolean)
LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
	before bigint := test.events_read();
	read bigint;
BEGIN
	ids := ARRAY(SELECT event_id FROM session_history(id, who, since));
	read := test.events_read() - before;
	events := cardinality(ids);
	same := ids = ARRAY(
		SELECT event_id FROM session_events
		WHERE session_id = coalesce(id, session_id) AND user_id = coalesce(who, user_id)
		AND at >= coalesce(since, '-infinity')
		ORDER BY at DESC, event_id DESC LIMIT 100);
	-- each partition is one ahead, and two of one time are sorted
	little := read <= 150;
END
$$;
CREATE VIEW test.histories AS
SELECT number, h.* FROM (VALUES
	(1, NULL::uuid, NULL, NULL::timestamptz),
	(2, NULL, NULL, '2101-05-09'),
	(3, NULL, NULL, '2101-02-01'),
	(4, NULL, 'big', NULL),
	(5, NULL, 'big', '2101-05-09'),
	(6, NULL, 'big', '2101-02-01'),
	(7, NULL, 'oldie', NULL),
	(8, NULL, 'oldie', '2101-01-01'),
	(9, NULL, 'oldie', '2101-05-01'),
	(10, NULL, 'few', NULL),
	(11, NULL, 'nobody', NULL),
	(12, md5('4')::uuid, NULL, NULL),
	(13, md5('4')::uuid, NULL, '2101-04-01'),
	(14, md5('4')::uuid, 'big', NULL),
	(15, md5('4')::uuid, 'few', '2101-04-01')) AS a (number, id, who, since),
	test.history(id, who, since) AS h;
SELECT * FROM test.histories ORDER BY number;
-- with statistics, which make reading everybody's events look good
ANALYZE session_events;
SELECT * FROM test.histories ORDER BY number;

-- 10000 at the most, in order, whatever a plan may do
SELECT count(*) FROM session_history(max_rows => 10000);
SELECT bool_and((at, event_id) < before) FROM (
	SELECT at, event_id, lag((at, event_id)) OVER (ORDER BY n) AS before
	FROM session_history(user_id => 'big', max_rows => 5000) WITH ORDINALITY AS h (event_id, at, a, b, c, d, e, f, g, n)) AS h;

DROP VIEW test.histories;
DROP FUNCTION test.history(uuid, text, timestamptz);
DROP FUNCTION test.events_read();
DROP TABLE test.history_1, test.history_2, test.history_3, test.history_4;
TRUNCATE session_events;
