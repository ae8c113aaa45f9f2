UPDATE bench.session
SET data = data || jsonb_build_object('seen', clock_timestamp()), version = version + 1
WHERE session_id = $1 AND revoked_at IS NULL AND expires_at > now()
RETURNING version, data;
INSERT INTO bench.event (at, session_id, user_id, event, detail)
VALUES (now(), $1, $2, 'updated', '{"version": 2}');
