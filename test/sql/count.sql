--
-- session_active_count and session_active_estimate: sessions of every kind, by
-- user, by tenant and all together
--
TRUNCATE user_sessions, session_events;
SELECT session_active_count(), session_active_estimate();
CREATE TABLE test.counted AS
SELECT kind, session_id, session_token
FROM unnest(ARRAY['live', 'no nulls', 'expired', 'at its absolute end', 'revoked', 'idle by the setting', 'used since', 'idle by its own', 'not idle by its own', 'staff', 'malformed', 'of a revoked key']) AS kind,
	LATERAL session_create(kind, tenant_id => 'acme', idle_timeout => CASE WHEN kind LIKE '%its own' THEN interval '10 min' END);
INSERT INTO test.counted
SELECT kind, c.session_id, c.session_token
FROM unnest(ARRAY['acted as', 'acted as, staff gone']) AS kind,
	(SELECT session_token AS staff FROM test.counted WHERE kind = 'staff') AS s,
	LATERAL session_create(kind, tenant_id => 'acme', actor_token => staff) AS c;
SELECT session_active_count(), session_active_count('acme'), session_active_estimate();

-- what the row says
UPDATE user_sessions SET expires_at = clock_timestamp() - interval '1 s' WHERE user_id = 'expired';
UPDATE user_sessions SET absolute_expires_at = clock_timestamp() - interval '1 s' WHERE user_id = 'at its absolute end';
SELECT session_invalidate(session_token) FROM test.counted WHERE kind = 'revoked';
UPDATE user_sessions SET rotated_at = created_at, successor_used_at = created_at, previous_valid_until = created_at, previous_key_id = key_id,
	previous_verifier = verifier, ip = '192.0.2.1', user_agent = 'any', revoked_reason = '', idle_timeout = '1 day', actor_id = 'nobody', actor_session_id = session_id
	WHERE user_id = 'no nulls';
ALTER TABLE user_sessions ALTER COLUMN created_at DROP NOT NULL;
UPDATE user_sessions SET created_at = NULL WHERE user_id = 'malformed';
UPDATE user_sessions SET actor_session_id = '00000000-0000-0000-0000-000000000000' WHERE user_id = 'acted as, staff gone';
INSERT INTO session_keys (key_id, state, created_at, revoked_at) VALUES (30000, 'revoked', now(), now());
UPDATE user_sessions SET verifier_key_id = 30000 WHERE user_id = 'of a revoked key';

-- and what it does not: when it was used
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '1 hour'
	WHERE user_id IN ('idle by the setting', 'used since', 'idle by its own', 'no nulls');
SELECT count(*) FROM test.counted AS c, session_get(c.session_token) WHERE kind = 'used since';
SELECT kind, session_active_count(user_id => kind), session_active_count('acme', kind) AS in_tenant,
	session_active_count('none', kind) AS in_another, session_status(session_token)
FROM test.counted ORDER BY kind COLLATE "C";
SELECT session_active_count(), session_active_count('acme') AS acme, session_active_estimate();
SET session_manager.idle_timeout = '30 min';
SELECT kind, session_active_count(user_id => kind), session_active_count('acme', kind) AS in_tenant, session_status(session_token)
FROM test.counted WHERE kind ~ 'idle|used|no nulls' ORDER BY kind COLLATE "C";
SELECT session_active_count(), session_active_count('acme') AS acme, session_active_estimate();
RESET session_manager.idle_timeout;

DELETE FROM session_keys WHERE key_id = 30000;
TRUNCATE user_sessions, session_events;
ALTER TABLE user_sessions ALTER COLUMN created_at SET NOT NULL;
DROP TABLE test.counted;
