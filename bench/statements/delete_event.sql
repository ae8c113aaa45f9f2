SET synchronous_commit = on;
DO $$
DECLARE
	n bigint;
BEGIN
	LOOP
		WITH d AS (
			DELETE FROM bench.session WHERE session_id IN (
				SELECT session_id FROM bench.session WHERE sweep_at <= now() LIMIT 1000 FOR UPDATE SKIP LOCKED)
			RETURNING session_id, user_id, tenant_id)
		INSERT INTO bench.event (at, session_id, user_id, tenant_id, event)
		SELECT clock_timestamp(), session_id, user_id, tenant_id, 'expired' FROM d;
		GET DIAGNOSTICS n = ROW_COUNT;
		EXIT WHEN n = 0;
	END LOOP;
END
$$;
