UPDATE bench.session SET revoked_at = now(), revoked_reason = 'logout'
WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > now()
RETURNING user_id;
INSERT INTO bench.event (at, session_id, user_id, event, detail)
VALUES (now(), $1, $2, 'invalidated', '{"reason": "logout"}');
