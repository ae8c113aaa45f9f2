WITH u AS (
	UPDATE bench.session
	SET data = data || jsonb_build_object('seen', clock_timestamp()), version = version + 1
	WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > now()
	RETURNING session_id, user_id, tenant_id, version, data
), e AS (
	INSERT INTO bench.event (at, session_id, user_id, tenant_id, event, detail)
	SELECT now(), session_id, user_id, tenant_id, 'updated', jsonb_build_object('version', version) FROM u
)
SELECT version, data FROM u;
