\set i random(1, :rows)
SELECT digest, session_id FROM bench.token WHERE i = :i \gset
WITH u AS (UPDATE bench.session SET expires_at = least(now() + ttl, absolute_expires_at), last_seen_at = now() WHERE session_id = :session_id AND revoked_at IS NULL RETURNING session_id, user_id, tenant_id, expires_at, absolute_expires_at), e AS (INSERT INTO bench.event (at, session_id, user_id, tenant_id, event) SELECT now(), session_id, user_id, tenant_id, 'refreshed' FROM u) SELECT session_id, expires_at, absolute_expires_at FROM u;
