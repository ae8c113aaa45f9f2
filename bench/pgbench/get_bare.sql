\set i random(1, :rows)
SELECT digest, session_id FROM bench.token WHERE i = :i \gset
SELECT session_id, user_id, tenant_id, data, version, auth, created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at, true AS cacheable FROM bench.session WHERE session_id = :session_id;
