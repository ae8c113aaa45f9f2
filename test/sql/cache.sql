-- The cache in Redis, where there is none: nothing may be cached, nothing is
-- recorded, and writers pay nothing.  The same whether the library is preloaded
-- or not.  The TAP tests have a Redis server.
LOAD 'session_manager';
SELECT name, setting, unit FROM pg_settings
WHERE name LIKE 'session\_manager.redis\_%' OR name = 'session_manager.cache_ttl' ORDER BY name COLLATE "C";

-- Changed for the whole server alone, by its configuration
SET session_manager.redis_mode = 'strict';
ALTER DATABASE contrib_regression SET session_manager.redis_mode = 'strict';
ALTER SYSTEM SET session_manager.redis_mode = 'eager';
ALTER SYSTEM SET session_manager.redis_port = 65536;
\set VERBOSITY sqlstate
ALTER SYSTEM SET session_manager.redis_timeout = '1ms';		-- 18 names the unit
\set VERBOSITY default

-- What readers are told
SELECT mode, max_age FROM session_cache_settings();
BEGIN;
SET LOCAL session_manager.cache_ttl = '90s';
SELECT mode, max_age FROM session_cache_settings();
SET LOCAL session_manager.idle_timeout = '10s';
SELECT mode, max_age FROM session_cache_settings();
SET LOCAL session_manager.idle_timeout = '1s';
SELECT mode, max_age FROM session_cache_settings();
ROLLBACK;
SELECT key, value FROM session_info() WHERE key LIKE 'cache%';

-- Nothing may be cached
SELECT session_token, session_id FROM session_create('cache') \gset
SELECT user_id, cacheable FROM session_get(:'session_token');

-- Nothing is recorded
SELECT version FROM session_update(:'session_token', '{"a": 1}');
SELECT session_invalidate(:'session_token');
UPDATE user_sessions SET version = version + 1 WHERE user_id = 'cache';
DELETE FROM user_sessions WHERE user_id = 'cache';
BEGIN;
TRUNCATE user_sessions;
ROLLBACK;
SELECT count(*) FROM session_outbox;

-- The triggers are for everybody's writes, in every replication role.
SELECT tgrelid::regclass, tgname, tgenabled, tgfoid::regproc,
	pg_get_triggerdef(oid) ~ 'AFTER (UPDATE OR DELETE|DELETE OR UPDATE) ON .* FOR EACH ROW' AS rows,
	pg_get_triggerdef(oid) ~ 'AFTER TRUNCATE ON .* FOR EACH STATEMENT' AS truncate
FROM pg_trigger WHERE tgfoid = 'session_cache_record'::regproc ORDER BY 1, 2;
SELECT session_cache_record();

-- The outbox belongs to the extension, and so to nobody else.
SELECT relacl IS NULL OR NOT EXISTS (SELECT FROM aclexplode(relacl) AS a WHERE a.grantee <> relowner) AS private, reloptions
FROM pg_class WHERE oid = 'session_outbox'::regclass;
