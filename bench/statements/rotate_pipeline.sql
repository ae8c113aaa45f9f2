UPDATE bench.session
SET expires_at = least(now() + ttl, absolute_expires_at), last_seen_at = now(),
	previous_verifier = verifier, previous_key_id = verifier_key_id, verifier = $3,
	rotated_at = now(), previous_valid_until = now() + interval '30 seconds',
	successor_used_at = NULL
WHERE session_id = $1 AND user_id = $2 AND revoked_at IS NULL
RETURNING session_id, expires_at, absolute_expires_at;
INSERT INTO bench.event (at, session_id, user_id, event)
VALUES (now(), $1, $2, 'rotated');
