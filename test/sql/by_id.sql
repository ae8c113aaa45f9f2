--
-- session_get_id, session_bind_id: work beside requests, which has no token
--
SET TimeZone = 'UTC';
SELECT session_grant('regress_session_app', 'app');
SELECT session_id, session_token FROM session_create('alice', '{"secret": "data"}', tenant_id => 'acme') \gset a_
SELECT session_id, session_token FROM session_create('bob', idle_timeout => '1min') \gset b_
SET ROLE regress_session_app;

-- What a row says: no token, no data
SELECT tenant_id, actor_id, created_at = authenticated_at AS fresh, last_seen_at >= created_at AS seen,
	expires_at < absolute_expires_at AS times, ends_at = expires_at AS by_ttl
FROM session_get_id(:'a_session_id', 'alice');
SELECT tenant_id, ends_at = last_seen_at + '1min' AS by_idleness FROM session_get_id(:'b_session_id', 'bob');
-- It takes the user too, exactly
SELECT count(*) FROM session_get_id(:'a_session_id', 'bob');
SELECT count(*) FROM session_get_id(:'a_session_id', 'Alice');
SELECT count(*) FROM session_get_id(:'a_session_id', 'alice ');
SELECT count(*) FROM session_get_id('00000000-0000-0000-0000-000000000000', 'alice');
SELECT count(*) FROM session_get_id(NULL, 'alice');
SELECT * FROM session_get_id(:'a_session_id', NULL);
SELECT * FROM session_get_id(:'a_session_id', '');
SELECT session_bind_id(:'a_session_id', NULL);
-- No use is recorded, and nothing left behind
SELECT count(*) FROM session_history(session_id => :'a_session_id');

-- The identity of a transaction
BEGIN;
SELECT session_bind_id(:'a_session_id', 'alice');
SELECT session_user_id(), session_tenant_id(), session_actor_id(), session_id() = :'a_session_id' AS id;
SAVEPOINT s;
SELECT session_bind_id(:'b_session_id', 'bob');
SELECT session_user_id(), session_tenant_id();
ROLLBACK TO s;
SELECT session_user_id(), session_tenant_id();
-- one that fails leaves nobody
SELECT session_bind_id(:'a_session_id', 'bob');
SELECT session_user_id(), session_tenant_id(), session_id();
SELECT session_bind_id(:'a_session_id', 'alice');
SELECT session_bind_id(NULL, 'alice');
SELECT session_user_id();
COMMIT;
SELECT session_user_id();

-- A new token changes nothing
SELECT status FROM session_refresh(:'a_session_token', rotate => true);
SELECT count(*) FROM session_get_id(:'a_session_id', 'alice');
BEGIN READ ONLY;
SELECT count(*) FROM session_get_id(:'a_session_id', 'alice');
SELECT session_bind_id(:'a_session_id', 'alice');
COMMIT;

-- Ended: revoked, expired, idle, tampered with, and together with the actor's
SELECT session_invalidate_id(:'a_session_id');
SELECT count(*) FROM session_get_id(:'a_session_id', 'alice');
SELECT session_bind_id(:'a_session_id', 'alice');
SELECT session_id FROM session_create('alice', ttl => '1 microsecond') \gset e_
SELECT count(*) FROM session_get_id(:'e_session_id', 'alice');
SELECT session_bind_id(:'e_session_id', 'alice');
SELECT session_id FROM session_create('alice', idle_timeout => '0.1 seconds') \gset i_
SELECT pg_sleep(0.2);
SELECT count(*) FROM session_get_id(:'i_session_id', 'alice');
SELECT session_bind_id(:'i_session_id', 'alice');
SELECT session_id, session_token FROM session_create('staff', ttl => '1 hour') \gset s_
SELECT session_id FROM session_create('alice', actor_token => :'s_session_token') \gset c_
SELECT actor_id, ends_at < expires_at AS with_the_actor FROM session_get_id(:'c_session_id', 'alice');
BEGIN;
SELECT session_bind_id(:'c_session_id', 'alice'), session_actor_id();
COMMIT;
SELECT session_invalidate(:'s_session_token');
SELECT count(*) FROM session_get_id(:'c_session_id', 'alice');
SELECT session_bind_id(:'c_session_id', 'alice');
RESET ROLE;
UPDATE user_sessions SET user_id = 'alice' WHERE user_id = 'bob';
SELECT count(*) FROM session_get_id(:'b_session_id', 'alice');
SELECT session_bind_id(:'b_session_id', 'alice');

DELETE FROM user_sessions;
DELETE FROM session_events;
SELECT session_revoke('regress_session_app', 'app');
