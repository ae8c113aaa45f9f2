\set i random(1, :rows)
SELECT s.session_id, s.user_id, s.tenant_id, s.data, s.version, s.auth, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at, s.absolute_expires_at, true AS cacheable FROM bench.token t, bench.session s WHERE t.i = :i AND s.session_id = t.session_id;
