--
-- session_end_reason: why a session has ended, for the device that held it
--
SET TimeZone = 'UTC';
-- What the function says of a session that it is given some way to end
CREATE PROCEDURE test.ended(how text)
LANGUAGE plpgsql AS $$
DECLARE
	s record;
	before text;
	after text;
BEGIN
	SELECT * INTO s FROM public.session_create('ended', tenant_id => 'ended');
	SELECT public.session_end_reason(s.session_token) INTO before;
	EXECUTE replace(replace(how, '$id', quote_literal(s.session_id)), '$token', quote_literal(s.session_token));
	SELECT public.session_end_reason(s.session_token) INTO after;
	RAISE INFO '%: % -> %', how, before, after;
END
$$;
CALL test.ended('SELECT 1');
CALL test.ended('SELECT public.session_invalidate($token)');
CALL test.ended('SELECT public.session_invalidate($token, ''password_changed'')');
CALL test.ended('SELECT public.session_invalidate(public.session_token_digest($token))');
CALL test.ended('SELECT public.session_invalidate_id($id)');
CALL test.ended('SELECT public.session_invalidate_all(''ended'')');
CALL test.ended('SELECT public.session_invalidate_tenant(''ended'')');
CALL test.ended('SELECT public.session_switch_tenant($token, ''other'')');
CALL test.ended('SELECT public.session_erase(''ended'')');
CALL test.ended('UPDATE public.user_sessions SET revoked_at = now() WHERE session_id = $id');
CALL test.ended('UPDATE public.user_sessions SET expires_at = clock_timestamp() WHERE session_id = $id');
CALL test.ended('SELECT public.session_refresh($token, ttl => ''1 microsecond'')');
-- a row that somebody else wrote lives by its own word, though no token works for it
CALL test.ended('UPDATE public.user_sessions SET expires_at = expires_at - interval ''1 second'' WHERE session_id = $id');
-- free text is told as it was given
CALL test.ended('SELECT public.session_invalidate($token, ''called by phone, Mr. X'')');
SET session_manager.max_sessions_per_user = 1;
CALL test.ended('SELECT public.session_create(''ended'')');
RESET session_manager.max_sessions_per_user;
SELECT session_id, session_token FROM session_create('idle') \gset i_
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '1 hour' WHERE session_id = :'i_session_id';
SET session_manager.idle_timeout = '10min';
SELECT session_end_reason(:'i_session_token');
RESET session_manager.idle_timeout;
SELECT session_end_reason(:'i_session_token');

-- The previous token is told as well, one before that is not
SELECT session_id, session_token FROM session_create('rotated') \gset a1_
SELECT session_token FROM session_refresh(:'a1_session_token', rotate => true) \gset a2_
SELECT session_token FROM session_refresh(:'a2_session_token', rotate => true) \gset a3_
SELECT count(*) FROM session_get(:'a3_session_token');
SET session_manager.rotation_grace = 0;
SELECT session_end_reason(:'a2_session_token') AS superseded, session_end_reason(:'a3_session_token') AS live;
SELECT status FROM session_refresh(:'a2_session_token');
SELECT session_end_reason(:'a1_session_token') AS a1, session_end_reason(:'a2_session_token') AS a2, session_end_reason(:'a3_session_token') AS a3;
RESET session_manager.rotation_grace;

-- Nobody else is, and leaves the usual event
SELECT session_id, session_token FROM session_create('private') \gset p_
SELECT session_invalidate(:'p_session_token', 'evicted');
SELECT session_end_reason(test.change_char(:'p_session_token', 68)) AS wrong_secret, session_end_reason('sm1_' || repeat('A', 64)) AS unknown,
	session_end_reason(NULL) AS "null", session_end_reason('') AS malformed, session_end_reason(left(:'p_session_token', 67)) AS shortened;
SELECT event, detail ->> 'cause' AS cause FROM test.events(:'p_session_id') WHERE event = 'rejected';
BEGIN READ ONLY;
SELECT session_end_reason(:'p_session_token');
SELECT session_end_reason(test.change_char(:'p_session_token', 67));
COMMIT;

-- Under a revoked key no token can be told from a guess
SELECT session_token FROM session_create('keyed') \gset k1_
SELECT session_token FROM session_create('keyed') \gset k2_
SELECT session_invalidate(:'k2_session_token', 'admin');
SELECT session_end_reason(:'k1_session_token') AS k1, session_end_reason(:'k2_session_token') AS k2;
BEGIN;
SELECT session_key_revoke(key_id) FROM session_keys() WHERE state = 'active';
SELECT session_end_reason(:'k1_session_token') AS k1, session_end_reason(:'k2_session_token') AS k2;
ROLLBACK;

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
