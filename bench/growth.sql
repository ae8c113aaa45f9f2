-- What the measurement of growth needs beside the peers.
CREATE EXTENSION pg_prewarm;

-- Read the indexes of both sides, and every so many of the sessions, into the
-- cache.
CREATE PROCEDURE bench.warm(step integer)
LANGUAGE plpgsql
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
	PERFORM pg_prewarm(indexrelid) FROM pg_index
	WHERE indrelid IN ('bench.session'::regclass, 'public.user_sessions'::regclass)
		OR indrelid IN (SELECT inhrelid FROM pg_inherits
			WHERE inhparent IN ('bench.event'::regclass, 'public.session_events'::regclass));
	PERFORM count(s.version), count(b.version)
	FROM bench.token t
		JOIN public.user_sessions s USING (session_id)
		JOIN bench.session b USING (session_id)
	WHERE t.i % step = 0;
END
$$;

-- Fill a small cache with the beginning of both tables.
CREATE PROCEDURE bench.occupy()
LANGUAGE plpgsql
AS $$
DECLARE
	half bigint := (SELECT setting::bigint / 2 FROM pg_settings WHERE name = 'shared_buffers');
BEGIN
	PERFORM pg_prewarm(t, first_block => 0,
			last_block => least(half, pg_relation_size(t) / current_setting('block_size')::bigint) - 1)
	FROM unnest('{public.user_sessions, bench.session}'::regclass[]) t;
END
$$;

-- What the logins of a measurement have left: so that the next one finds as many
-- sessions, and as many for each user.  Ids are in the order of time.
CREATE PROCEDURE bench.forget_since(at timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
	first uuid := rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
BEGIN
	DELETE FROM public.user_sessions WHERE session_id >= first;
	DELETE FROM bench.session WHERE session_id >= first;
	DELETE FROM public.session_events e WHERE e.at >= forget_since.at;
	DELETE FROM bench.event e WHERE e.at >= forget_since.at;
END
$$;
