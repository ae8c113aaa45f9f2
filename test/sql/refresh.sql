--
-- session_refresh: extend, rotate, catch replays
--
SET TimeZone = 'UTC';

-- End the grace of every previous token: a shorter one holds at once.
CREATE FUNCTION test.end_grace(id uuid) RETURNS void
LANGUAGE sql AS $$
	SELECT set_config('session_manager.rotation_grace', '0', false);
$$;

--
-- Without rotation
--
SELECT * FROM session_create('alice', '{"n": 1}', ttl => '2 hours', ip => '192.0.2.1', user_agent => 'one') \gset a_
SELECT status FROM session_refresh(:'a_session_token', ttl => '1 min');
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 min'
WHERE session_id = :'a_session_id';
SELECT * FROM session_refresh(:'a_session_token') \gset r_
SELECT :'r_status' AS status, :'r_session_id' = :'a_session_id' AS same_id, NOT :{?r_session_token} AS no_token,
	:'r_absolute_expires_at' = :'a_absolute_expires_at' AS same_end,
	round(extract(epoch FROM :'r_expires_at' - clock_timestamp()) / 60) AS minutes;
SELECT expires_at = :'r_expires_at' AS as_returned, version, data, clock_timestamp() - last_seen_at < '50 s' AS seen,
	authenticated_at = created_at AS not_elevated
FROM session_get(:'a_session_token');
SELECT ip, user_agent FROM user_sessions WHERE session_id = :'a_session_id';	-- none given
-- the ttl of the session is what it was created with, unless one is given
SELECT status, round(extract(epoch FROM expires_at - clock_timestamp()) / 60) AS minutes
FROM session_refresh(:'a_session_token', ttl => '10 min', ip => '192.0.2.2', user_agent => 'two');
SELECT ip, user_agent FROM user_sessions WHERE session_id = :'a_session_id';
SELECT status, round(extract(epoch FROM expires_at - clock_timestamp()) / 60) AS minutes
FROM session_refresh(session_token_digest(:'a_session_token'));
-- clamped to the absolute end
SELECT status, expires_at = absolute_expires_at AS clamped, absolute_expires_at = :'a_absolute_expires_at' AS same_end
FROM session_refresh(:'a_session_token', ttl => '1000 years');
SELECT status, expires_at = absolute_expires_at AS clamped FROM session_refresh(:'a_session_token', ttl => '170000000 years');
DO $$
BEGIN
	IF current_setting('server_version_num')::integer >= 170000 THEN
		PERFORM FROM session_create('inf') AS c, session_refresh(c.session_token, ttl => 'infinity') AS r
		WHERE r.expires_at = c.absolute_expires_at;
		IF NOT FOUND THEN
			RAISE 'an infinite ttl was not clamped';
		END IF;
	END IF;
END
$$;
CALL test.error(format('SELECT session_refresh(%L, ttl => ''0'')', :'a_session_token'));
CALL test.error(format('SELECT session_refresh(%L, ttl => ''-1 s'')', :'a_session_token'));
-- a shorter one is granted as well, and the row needs no new place in the sweep
SELECT sweep_at AS before FROM user_sessions WHERE session_id = :'a_session_id' \gset
SELECT status, round(extract(epoch FROM expires_at - clock_timestamp())) <= 1 AS short FROM session_refresh(:'a_session_token', ttl => '1 s');
SELECT sweep_at = :'before' AS unmoved FROM user_sessions WHERE session_id = :'a_session_id';
SELECT status FROM session_refresh(:'a_session_token', rotate => NULL);
SELECT event, detail FROM test.events(:'a_session_id');

-- Ended, and all the same to the one who asks
SELECT test.shown(r) FROM session_refresh(NULL) AS r;
SELECT test.shown(r) FROM session_refresh('x') AS r;
SELECT test.shown(r) FROM session_refresh('sm1_' || repeat('A', 64), true) AS r;
SELECT test.shown(r) FROM session_refresh(test.change_char(:'a_session_token', 68), true) AS r;
SELECT session_id, session_token FROM session_create('ended') \gset e_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'e_session_id';
SELECT test.shown(r) FROM session_refresh(:'e_session_token') AS r;
SELECT test.shown(r) FROM session_refresh(:'e_session_token', true) AS r;
SELECT count(*) FROM session_get(:'e_session_token');
SELECT expires_at < clock_timestamp() AS expired, rotated_at FROM user_sessions WHERE session_id = :'e_session_id';
SELECT session_token FROM session_create('ended') \gset e_
SELECT session_invalidate(:'e_session_token');
SELECT test.shown(r) FROM session_refresh(:'e_session_token', true) AS r;
SELECT count(*) FROM session_get(:'e_session_token');
SELECT session_id, session_token FROM session_create('ended') \gset e_
DELETE FROM user_sessions WHERE session_id = :'e_session_id';
SELECT test.shown(r) FROM session_refresh(:'e_session_token') AS r;
SELECT count(*) FROM user_sessions WHERE session_id = :'e_session_id';
SELECT session_id, session_token FROM session_create('idle') \gset i_
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '1 hour' WHERE session_id = :'i_session_id';
SET session_manager.idle_timeout = '10min';
SELECT test.shown(r) FROM session_refresh(:'i_session_token') AS r;
RESET session_manager.idle_timeout;
-- the end of the longest life cannot be refreshed away
SET session_manager.max_lifetime = 1;
SELECT session_token FROM session_create('brief') \gset m_
RESET session_manager.max_lifetime;
SELECT status, expires_at = absolute_expires_at AS clamped FROM session_refresh(:'m_session_token', ttl => '1 day');
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
SELECT status FROM session_refresh(:'m_session_token', ttl => '1 day');

--
-- With rotation
--
SELECT * FROM session_create('bob', '{"n": 1}', auth => '{"amr": ["pwd"]}') \gset b1_
SELECT test.shown(r), r.* FROM session_refresh(:'b1_session_token', rotate => true) AS r \gset b2_
SELECT :'b2_shown' AS shown, :'b2_session_id' = :'b1_session_id' AS same_id, :'b2_session_token' <> :'b1_session_token' AS new_token,
	:'b2_session_token' ~ '^sm1_[A-Za-z0-9_-]{64}$' AS well_formed;
SELECT octet_length(previous_verifier), successor_used_at IS NULL AS unused, previous_valid_until - rotated_at AS grace,
	clock_timestamp() - rotated_at < '1 min' AS now
FROM user_sessions WHERE session_id = :'b1_session_id';
-- inside the grace the previous token works, but rotates nothing
SELECT data, version, auth FROM session_get(:'b1_session_token');
SELECT test.shown(r) FROM session_refresh(:'b1_session_token', rotate => true) AS r;
SELECT test.shown(r) FROM session_refresh(:'b1_session_token') AS r;
SELECT version FROM session_update(:'b1_session_token', '{"n": 2}');
SELECT data, version, auth FROM session_get(:'b2_session_token');
SELECT test.shown(r) FROM session_refresh(:'b1_session_token', rotate => true) AS r;
-- after it, nothing
SELECT test.end_grace(:'b1_session_id');
SELECT count(*) FROM session_get(:'b1_session_token');
SELECT * FROM session_update(:'b1_session_token', '{"n": 3}');
SELECT session_bind(:'b1_session_token');
SELECT test.shown(r) FROM session_elevate(:'b1_session_token', '{}') AS r;
SELECT count(*) FROM session_get(:'b2_session_token');
-- and trying to go on with it ends the session
SELECT test.shown(r) FROM session_refresh(:'b1_session_token') AS r;
SELECT count(*) FROM session_get(:'b2_session_token');
SELECT test.shown(r) FROM session_refresh(:'b2_session_token') AS r;
SELECT test.shown(r) FROM session_refresh(:'b1_session_token') AS r;
SELECT session_status(:'b2_session_token');
SELECT revoked_at IS NOT NULL AS revoked, revoked_reason FROM user_sessions WHERE session_id = :'b1_session_id';
SELECT event, detail, session_event_severity(event) FROM test.events(:'b1_session_id')
WHERE event NOT IN ('rejected', 'bind_failed');

RESET session_manager.rotation_grace;

-- The session as it has become, in the same statement
SELECT session_token FROM session_create('live', '{"n": 1}', auth => '{"amr": ["pwd"]}') \gset l1_
PREPARE refresh_and_get AS
SELECT test.shown(r), r.session_token, s.session_id = r.session_id AS same_id, s.user_id, s.data, s.version, s.auth,
	s.expires_at = r.expires_at AS same_end, s.cacheable
FROM session_refresh($1, rotate => $2) AS r
LEFT JOIN session_get(CASE WHEN r.expires_at IS NOT NULL THEN coalesce(r.session_token, $1) END, touch => false) AS s ON true;
EXECUTE refresh_and_get(:'l1_session_token', false);
EXECUTE refresh_and_get(:'l1_session_token', true) \gset l2_
SELECT :'l2_shown' AS shown, :'l2_same_id' AS same_id, :'l2_user_id' AS user_id, :'l2_data' AS data, :'l2_version' AS version,
	:'l2_auth' AS auth, :'l2_same_end' AS same_end;
EXECUTE refresh_and_get(:'l1_session_token', true);
-- reading it so was no use of the new token, nor is one that is over read again
SELECT successor_used_at FROM user_sessions WHERE user_id = 'live';
SELECT count(*) FROM session_get(:'l2_session_token');
SELECT test.end_grace(NULL);
EXECUTE refresh_and_get(:'l1_session_token', true);
EXECUTE refresh_and_get(:'l2_session_token', true);
EXECUTE refresh_and_get(NULL, true);
SELECT event, detail FROM session_events WHERE user_id = 'live' AND event IN ('rejected', 'token_reused', 'invalidated') ORDER BY event_id;
DEALLOCATE refresh_and_get;
RESET session_manager.rotation_grace;

-- The finding of a replay is a status, not an error: committed with the rest
SELECT * FROM session_create('replayed') \gset c1_
SELECT session_token FROM session_refresh(:'c1_session_token', rotate => true) \gset c2_
SELECT count(*) FROM session_get(:'c2_session_token');
SELECT test.end_grace(:'c1_session_id');
BEGIN;
SELECT test.shown(r) FROM session_refresh(:'c1_session_token', rotate => true, ip => '192.0.2.66', user_agent => 'thief') AS r;
COMMIT;
SELECT count(*) FROM session_get(:'c2_session_token');
SELECT event, ip, user_agent FROM session_events WHERE session_id = :'c1_session_id' AND event = 'token_reused';

RESET session_manager.rotation_grace;

-- The answer got lost: the new token was never used, so the old one rotates
-- again after the grace, and the lost one is worth nothing.
SELECT * FROM session_create('lost') \gset d1_
SET session_manager.rotation_grace = 0;
SELECT session_token FROM session_refresh(:'d1_session_token', rotate => true) \gset d2_
RESET session_manager.rotation_grace;
SELECT count(*) FROM session_get(:'d1_session_token');
SET session_manager.rotation_grace = 0;
SELECT count(*) FROM session_get(:'d1_session_token');	-- and reads until then
RESET session_manager.rotation_grace;
SELECT r.*, test.shown(r) FROM session_refresh(:'d1_session_token', rotate => true) AS r \gset d3_
SELECT :'d3_shown' AS shown, :'d3_session_token' NOT IN (:'d1_session_token', :'d2_session_token') AS new_token;
SELECT count(*) FROM session_get(:'d2_session_token');
SELECT count(*) FROM session_get(:'d3_session_token');
SELECT count(*) FROM session_get(:'d1_session_token');	-- in its grace again
SELECT test.shown(r) FROM session_refresh(:'d2_session_token') AS r;
SELECT count(*) FROM session_get(:'d3_session_token');
SELECT test.end_grace(:'d1_session_id');
SELECT test.shown(r) FROM session_refresh(:'d1_session_token') AS r;
SELECT event FROM test.events(:'d1_session_id') WHERE event NOT IN ('rejected', 'bind_failed');
RESET session_manager.rotation_grace;
-- without rotate as well: the holder of the old token needs a new one
SELECT * FROM session_create('lost') \gset d1_
SELECT session_token FROM session_refresh(:'d1_session_token', rotate => true) \gset d2_
SELECT test.end_grace(:'d1_session_id');
SELECT test.shown(r) FROM session_refresh(:'d1_session_token') AS r;
RESET session_manager.rotation_grace;

-- Until its successor has been used, the previous token works past the grace
-- everywhere it works within, and gains nothing. None of that is a use of the
-- successor.
SELECT * FROM session_create('tunnel', '{"n": 1}') \gset t1_
SELECT session_token FROM session_refresh(:'t1_session_token', rotate => true) \gset t2_
SELECT test.end_grace(:'t1_session_id');
SELECT data FROM session_get(:'t1_session_token');
SELECT data FROM session_get(session_token_digest(:'t1_session_token'), touch => false);
SELECT version, data FROM session_update(:'t1_session_token', '{"n": 2}');
SELECT version, data FROM session_update(:'t1_session_token', '{}');
SELECT session_bind(:'t1_session_token');
SELECT test.shown(r) FROM session_elevate(:'t1_session_token', '{}') AS r;
SELECT test.shown(r) FROM session_switch_tenant(:'t1_session_token', 'acme') AS r;
SELECT session_status(:'t1_session_token');
SELECT is_current FROM session_list('tunnel', :'t1_session_token');
SELECT session_invalidate_all('tunnel', except_token => :'t1_session_token');
BEGIN READ ONLY;
SELECT data FROM session_get(:'t1_session_token');
COMMIT;
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE session_id = :'t1_session_id';
SELECT data FROM session_get(:'t1_session_token');	-- a touch is due
SELECT successor_used_at FROM user_sessions WHERE session_id = :'t1_session_id';
SELECT count(*) FROM test.events(:'t1_session_id') WHERE event IN ('rejected', 'bind_failed');
-- once it has, even in a transaction that has not ended, the grace alone counts
BEGIN;
SELECT data FROM session_get(:'t2_session_token');
SELECT count(*) FROM session_get(:'t1_session_token');
COMMIT;
SELECT * FROM session_update(:'t1_session_token', '{"n": 3}');
SELECT session_bind(:'t1_session_token');
SELECT test.shown(r) FROM session_elevate(:'t1_session_token', '{}') AS r;
SELECT test.shown(r) FROM session_switch_tenant(:'t1_session_token', 'acme') AS r;
SELECT session_status(:'t1_session_token');
SELECT is_current FROM session_list('tunnel', :'t1_session_token');
SELECT DISTINCT event, detail ->> 'cause' AS cause FROM test.events(:'t1_session_id') WHERE event IN ('rejected', 'bind_failed') ORDER BY event;
RESET session_manager.rotation_grace;
SELECT data FROM session_get(:'t1_session_token');
SELECT test.end_grace(:'t1_session_id');
SELECT test.shown(r) FROM session_refresh(:'t1_session_token') AS r;
SELECT count(*) FROM session_get(:'t2_session_token');
RESET session_manager.rotation_grace;
-- whoever writes to the table cannot make a used successor an unused one
SELECT * FROM session_create('tunnel') \gset t1_
SELECT session_token FROM session_refresh(:'t1_session_token', rotate => true) \gset t2_
SELECT version FROM session_update(:'t2_session_token', '{"n": 1}');
SELECT test.end_grace(:'t1_session_id');
SELECT count(*) FROM session_get(:'t1_session_token');
UPDATE user_sessions SET successor_used_at = NULL WHERE session_id = :'t1_session_id';
SELECT count(*) FROM session_get(:'t1_session_token');
SELECT count(*) FROM session_get(:'t2_session_token');
SELECT detail ->> 'cause' AS cause FROM test.events(:'t1_session_id') WHERE event = 'rejected';
RESET session_manager.rotation_grace;

-- Every kind of use counts as the first use of the successor.
CREATE PROCEDURE test.use_successor(use text)
LANGUAGE plpgsql AS $$
DECLARE
	first record;
	second record;
	result text;
BEGIN
	SELECT * INTO first FROM public.session_create('used');
	SELECT * INTO second FROM public.session_refresh(first.session_token, rotate => true);
	EXECUTE format(use, second.session_token);
	PERFORM test.end_grace(first.session_id);
	SELECT status INTO result FROM public.session_refresh(first.session_token);
	PERFORM set_config('session_manager.rotation_grace', '30', false);
	RAISE INFO '%: %', use, result;
END
$$;
CALL test.use_successor('SELECT 1');
CALL test.use_successor('SELECT public.session_get(%L)');
CALL test.use_successor('SELECT public.session_update(%L, ''{"n": 1}'')');
CALL test.use_successor('SELECT public.session_refresh(%L)');
CALL test.use_successor('SELECT public.session_bind(%L)');
CALL test.use_successor('SELECT public.session_elevate(%L, ''{}'')');
CALL test.use_successor('SELECT public.session_get(public.session_token_digest(%L))');
CALL test.use_successor('SELECT public.session_get(%L, touch => false)');	-- told not to note it

-- Two rotations: only the last token's predecessor is known.
SELECT * FROM session_create('twice') \gset f1_
SELECT session_token FROM session_refresh(:'f1_session_token', rotate => true) \gset f2_
SELECT session_token FROM session_refresh(:'f2_session_token', rotate => true) \gset f3_
SELECT count(*) FROM session_get(:'f1_session_token');
SELECT count(*) FROM session_get(:'f2_session_token');
SELECT count(*) FROM session_get(:'f3_session_token');
SELECT test.end_grace(:'f1_session_id');
SELECT test.shown(r) FROM session_refresh(:'f1_session_token') AS r;
SELECT count(*) FROM session_get(:'f3_session_token');

-- No grace at all
SET session_manager.rotation_grace = 0;
SELECT * FROM session_create('strict') \gset g1_
SELECT session_token FROM session_refresh(:'g1_session_token', rotate => true) \gset g2_
SELECT count(*) FROM session_get(:'g2_session_token');
SELECT count(*) FROM session_get(:'g1_session_token');
SELECT test.shown(r) FROM session_refresh(:'g1_session_token') AS r;
RESET session_manager.rotation_grace;

-- Undone
SELECT * FROM session_create('undone') \gset h1_
BEGIN;
SELECT session_token FROM session_refresh(:'h1_session_token', rotate => true) \gset h2_
SELECT count(*) FROM session_get(:'h2_session_token');
ROLLBACK;
SELECT count(*) FROM session_get(:'h2_session_token');
SELECT status FROM session_refresh(:'h1_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
