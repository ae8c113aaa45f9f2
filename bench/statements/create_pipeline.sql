INSERT INTO bench.event (at, session_id, user_id, event, ip, user_agent)
VALUES (now(), $1, $2, 'created', $3, $4);
INSERT INTO bench.session (session_id, user_id, ip, user_agent, data, auth,
	verifier, created_at, authenticated_at, last_seen_at, expires_at,
	absolute_expires_at, sweep_at, ttl, version, key_id, verifier_key_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now(), now(), now() + interval '24 hours',
	now() + interval '168 hours', now() + interval '24 hours', '24 hours', 1, 1, 1)
RETURNING session_id, created_at, expires_at, absolute_expires_at;
