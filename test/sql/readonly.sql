--
-- Read-only transactions: reading works, every writer says 25006
--
SELECT session_id, session_token FROM session_create('alice', '{"n": 1}', ip => '192.0.2.1') \gset a_
-- a touch is due, and would be the first use of a rotated token
SELECT session_token FROM session_refresh(:'a_session_token', rotate => true) \gset b_
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE session_id = :'a_session_id';

BEGIN READ ONLY;
SELECT data FROM session_get(:'b_session_token', '192.0.2.2', 'two');
SELECT data FROM session_get(:'a_session_token');
SELECT count(*) FROM session_get(test.change_char(:'b_session_token', 68));
SELECT count(*) FROM session_get('sm1_' || repeat('A', 64));
SELECT session_bind(:'b_session_token');
SELECT session_user_id();
SELECT session_bind('sm1_' || repeat('A', 64));
SELECT session_user_id();
SELECT session_status(:'b_session_token');
SELECT session_end_reason(:'b_session_token');
SELECT count(*) FROM session_list('alice', :'b_session_token');
SELECT count(*) > 0 AS some FROM session_history(:'a_session_id');
SELECT session_active_count(user_id => 'alice');
SELECT count(*) > 0 AS some FROM session_keys();
SELECT count(*) > 0 AS some FROM session_info();
SELECT session_token_digest(:'a_session_token') ~ '^sd1_' AS digest, session_bucket('alice') >= 0 AS bucket, session_event_severity('created');
SELECT session_export('alice')::jsonb ? 'sessions' AS export;
SELECT pg_current_xact_id_if_assigned() IS NULL AS unwritten;
COMMIT;

-- Each writer, with something to write and without
BEGIN READ ONLY;
CALL test.error($$SELECT session_create('bob')$$);
CALL test.error(format('SELECT session_update(%L, ''{}'')', :'b_session_token'));
CALL test.error($$SELECT session_update('sm1_' || repeat('A', 64), '{}')$$);
CALL test.error(format('SELECT session_update_user(''alice'', ''{}'')'));
CALL test.error(format('SELECT session_update_user(''nobody'', ''{}'')'));
CALL test.error(format('SELECT session_refresh(%L)', :'b_session_token'));
CALL test.error(format('SELECT session_refresh(%L)', :'a_session_token'));
CALL test.error($$SELECT session_refresh('sm1_' || repeat('A', 64))$$);
CALL test.error(format('SELECT session_elevate(%L, ''{}'')', :'b_session_token'));
CALL test.error($$SELECT session_elevate('x', '{}')$$);
CALL test.error(format('SELECT session_invalidate(%L)', :'b_session_token'));
CALL test.error($$SELECT session_invalidate('sm1_' || repeat('A', 64))$$);
CALL test.error(format('SELECT session_invalidate_id(%L)', :'a_session_id'));
CALL test.error($$SELECT session_invalidate_id('00000000-0000-0000-0000-000000000000')$$);
CALL test.error($$SELECT session_invalidate_all('alice')$$);
CALL test.error($$SELECT session_invalidate_all('nobody')$$);
CALL test.error($$SELECT session_invalidate_tenant('acme')$$);
CALL test.error($$SELECT session_invalidate_everything()$$);
CALL test.error($$SELECT session_cleanup()$$);
CALL test.error($$SELECT session_erase('alice')$$);
CALL test.error($$SELECT session_erase('nobody')$$);
CALL test.error($$SELECT session_key_generate()$$);
CALL test.error($$SELECT session_key_add(1)$$);
CALL test.error($$SELECT session_key_activate(1)$$);
CALL test.error($$SELECT session_key_retire(1)$$);
CALL test.error($$SELECT session_key_revoke(1)$$);
CALL test.error($$SELECT session_reencrypt()$$);
CALL test.error($$SELECT session_hand_over()$$);
CALL test.error($$SELECT session_grant('regress_session_app', 'app')$$);
CALL test.error($$SELECT session_revoke('regress_session_app', 'app')$$);
ROLLBACK;
SELECT data FROM session_get(:'b_session_token');
SELECT test.shell(format('grep -c : %s', (SELECT path FROM test.key_file)))::integer = count(*) AS key_file_unchanged FROM session_keys;

SELECT session_erase('alice');
