WITH u AS (
	UPDATE bench.session SET revoked_at = now(), revoked_reason = 'logout'
	WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > now()
	RETURNING session_id, user_id, tenant_id
), e AS (
	INSERT INTO bench.event (at, session_id, user_id, tenant_id, event, detail)
	SELECT now(), session_id, user_id, tenant_id, 'invalidated', '{"reason": "logout"}' FROM u
)
SELECT user_id FROM u;
