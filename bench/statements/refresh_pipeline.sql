UPDATE bench.session
SET expires_at = least(now() + ttl, absolute_expires_at), last_seen_at = now()
WHERE session_id = $1 AND revoked_at IS NULL
RETURNING session_id, expires_at, absolute_expires_at;
INSERT INTO bench.event (at, session_id, user_id, event)
VALUES (now(), $1, $2, 'refreshed');
