SET synchronous_commit = on;
DO $$
DECLARE
	n bigint;
BEGIN
	LOOP
		DELETE FROM bench.session WHERE session_id IN (
			SELECT session_id FROM bench.session WHERE sweep_at <= now() LIMIT 1000 FOR UPDATE SKIP LOCKED);
		GET DIAGNOSTICS n = ROW_COUNT;
		EXIT WHEN n = 0;
	END LOOP;
END
$$;
