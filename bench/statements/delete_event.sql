WITH d AS (
	DELETE FROM bench.session WHERE ctid = ANY (ARRAY(
		SELECT ctid FROM bench.session WHERE sweep_at <= now()
		ORDER BY sweep_at LIMIT 1000))
	RETURNING session_id, user_id, tenant_id
)
INSERT INTO bench.event (at, session_id, user_id, tenant_id, event)
SELECT now(), session_id, user_id, tenant_id, 'expired' FROM d;
