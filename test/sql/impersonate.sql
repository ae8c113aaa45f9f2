--
-- A person who acts as another user, in a session that ends with that person's
-- own
--
SET TimeZone = 'UTC';
LOAD 'session_manager';
SELECT session_id, session_token, absolute_expires_at FROM session_create('staff', ip => '192.0.2.1', max_lifetime => '2 hours') \gset s_
SELECT session_id, session_token FROM session_create('alice', '{"n": 1}') \gset a_

-- The digest form will do, as everywhere.
SELECT * FROM session_create('alice', '{"n": 2}', ip => '192.0.2.2', user_agent => 'Firefox', tenant_id => 'acme',
	actor_token => session_token_digest(:'s_session_token')) \gset i_
SELECT user_id, actor_id, data, tenant_id, cacheable, :'i_new_device' AS new_device FROM session_get(:'i_session_token');
SELECT user_id, actor_id FROM session_get(:'a_session_token');
SELECT actor_id, actor_session_id = :'s_session_id' AS own FROM user_sessions WHERE session_id = :'i_session_id';
SELECT tenant_id, actor_id FROM session_list('alice') ORDER BY tenant_id;
SELECT session_status(:'i_session_token'), session_end_reason(:'i_session_token');
SELECT session_active_count(user_id => 'alice') AS alice, session_active_count(user_id => 'staff') AS staff;
-- it lasts no longer than the actor's can
SELECT :'i_absolute_expires_at' = :'s_absolute_expires_at' AS same_end, :'i_expires_at' = :'s_absolute_expires_at' AS cut;
SELECT absolute_expires_at - created_at AS absolute, expires_at - created_at AS lifetime
FROM session_create('alice', max_lifetime => '1 hour', ttl => '10 min', actor_token => :'s_session_token');

-- Identity for policies and triggers
SELECT session_actor_id();
BEGIN;
SELECT session_bind(:'i_session_token'), session_user_id(), session_tenant_id(), session_actor_id(), session_id() = :'i_session_id' AS id;
SAVEPOINT s;
SELECT session_bind(:'a_session_token'), session_user_id(), session_actor_id();
SELECT session_bind('nonsense'), session_user_id(), session_actor_id();
ROLLBACK TO s;
SELECT session_user_id(), session_actor_id();
COMMIT;
SELECT session_actor_id();
CREATE TABLE test.acted (owner text);
INSERT INTO test.acted VALUES ('alice'), ('staff');
ALTER TABLE test.acted ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON test.acted USING (owner = session_user_id());
CREATE POLICY not_by_others ON test.acted AS RESTRICTIVE FOR DELETE USING (session_actor_id() IS NULL);
GRANT SELECT, DELETE ON test.acted TO regress_session_app;
SELECT session_grant('regress_session_app', 'app');
SET ROLE regress_session_app;
BEGIN;
SELECT session_bind(:'i_session_token');
SELECT owner FROM test.acted;
DELETE FROM test.acted RETURNING owner;
SELECT session_bind(:'a_session_token');
DELETE FROM test.acted RETURNING owner;
ROLLBACK;
RESET ROLE;
SELECT session_revoke('regress_session_app', 'app');
DROP TABLE test.acted;

-- Every event of the session names the actor, and the actor's own session says
-- where.
SELECT version FROM session_update(:'i_session_token', '{"n": 3}');
SELECT count(*) FROM session_get(test.change_char(:'i_session_token', 68));
SELECT status FROM session_refresh(:'i_session_token');
SELECT session_token FROM session_refresh(:'i_session_token', rotate => true) \gset i2_
SELECT session_token FROM session_elevate(:'i2_session_token', '{"amr": ["otp"]}') \gset i3_
SELECT count(*) FROM session_get(:'i2_session_token');
SELECT session_id, session_token FROM session_switch_tenant(:'i3_session_token', 'globex') \gset i4_
SELECT user_id, actor_id, tenant_id, auth FROM session_get(:'i4_session_token');
SELECT event, detail - '{successor,suppressed}'::text[] AS detail FROM test.events(:'i_session_id');
SELECT event, detail - 'predecessor' AS detail FROM test.events(:'i4_session_id');
SELECT event, ip, detail ->> 'session_id' = :'i_session_id' AS first, detail ->> 'session_id' = :'i4_session_id' AS switched
FROM session_events WHERE session_id = :'s_session_id' ORDER BY event_id;
SELECT event, session_event_severity(event) FROM unnest('{impersonated,actor_ended}'::text[]) AS event;

-- Who is no actor
CALL test.error($$SELECT session_create('alice', actor_token => 'nonsense')$$);
CALL test.error($$SELECT session_create('alice', actor_token => '')$$);
CALL test.error(format($$SELECT session_create('alice', actor_token => %L)$$, 'sm1_' || repeat('A', 64)));
CALL test.error(format($$SELECT session_create('alice', actor_token => %L)$$, test.change_char(:'s_session_token', 68)));
CALL test.error(format($$SELECT session_create('alice', actor_token => %L)$$, :'i3_session_token'));
CALL test.error(format($$SELECT session_create('bob', actor_token => %L)$$, :'i4_session_token'));
CALL test.error(format($$SELECT session_create('staff', actor_token => %L)$$, :'s_session_token'));
SELECT count(*) FROM user_sessions WHERE user_id = 'bob';
-- the use of a network is checked, but neither it nor the use is recorded
BEGIN;
SET LOCAL session_manager.client_binding = strict;
CALL test.error(format($$SELECT session_create('alice', ip => '198.51.100.1', actor_token => %L)$$, :'s_session_token'));
UPDATE user_sessions SET last_seen_at = last_seen_at - interval '1 hour' WHERE session_id = :'s_session_id';
SELECT actor_id FROM session_create('alice', ip => '192.0.2.77', actor_token => :'s_session_token') AS c, session_get(c.session_token, '192.0.2.77');
SELECT ip, clock_timestamp() - last_seen_at > '1 hour' AS not_seen FROM session_list('staff');
ROLLBACK;

-- What the impersonation is good for after a change, which is then undone
CREATE FUNCTION test.after_change(change text, token text) RETURNS TABLE (call text, outcome text)
LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
BEGIN
	BEGIN
		EXECUTE change;
		result := '[]';
		FOR call IN SELECT unnest(ARRAY[
			'SELECT count(*)::text FROM public.session_get(%L)',
			'SELECT count(*)::text FROM public.session_update(%L, ''{"x": 1}'')',
			'SELECT status FROM public.session_refresh(%L)',
			'SELECT status FROM public.session_refresh(%L, rotate => true)',
			'SELECT status FROM public.session_elevate(%L, ''{}'')',
			'SELECT status FROM public.session_switch_tenant(%L, ''x'')',
			'SELECT public.session_bind(%L)::text',
			'SELECT public.session_status(%L)',
			'SELECT public.session_end_reason(%L)',
			'SELECT public.session_invalidate(%L)',
			'SELECT public.session_invalidate_all(''alice'')::text',
			'SELECT public.session_invalidate_id(session_id) FROM public.user_sessions WHERE actor_id = ''staff''',
			'SELECT count(*)::text FROM public.session_list(''alice'')',
			'SELECT string_agg(DISTINCT ended_reason, '' '') FROM public.session_list(''alice'', include_ended => true)',
			'SELECT public.session_active_count(user_id => ''alice'')::text'])
		LOOP
			BEGIN
				EXECUTE format(call, token) INTO outcome;
				RAISE SQLSTATE 'OK000';
			EXCEPTION WHEN SQLSTATE 'OK000' THEN
				result := result || jsonb_build_array(jsonb_build_array(substring(call FROM 'session_\w+'), outcome));
			END;
		END LOOP;
		RAISE SQLSTATE 'OK000';
	EXCEPTION WHEN SQLSTATE 'OK000' THEN
		RETURN QUERY SELECT r ->> 0, r ->> 1 FROM jsonb_array_elements(result) AS r;
	END;
END
$$;
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
SELECT session_id, session_token FROM session_create('staff') \gset s_
SELECT session_id, session_token FROM session_create('alice', actor_token => :'s_session_token') \gset i_
SELECT string_agg(call || ' ' || coalesce(outcome, '-'), ', ') FROM test.after_change('SELECT', :'i_session_token');
-- It ends with the actor's session, whichever way that ends.
SELECT change, string_agg(call || ' ' || coalesce(outcome, '-'), ', ')
FROM unnest(ARRAY[
	$$SELECT session_invalidate(%1$L)$$,
	$$SELECT session_invalidate_id(%2$L)$$,
	$$SELECT session_invalidate_all('staff')$$,
	$$SELECT session_switch_tenant(%1$L, 'acme')$$,
	$$SELECT session_erase('staff')$$,
	$$SELECT session_refresh(%1$L, ttl => '1 microsecond')$$,
	$$SET LOCAL session_manager.idle_timeout = 999; UPDATE user_sessions SET last_seen_at = last_seen_at - interval '9 h' WHERE session_id = %2$L$$,
	$$DELETE FROM user_sessions WHERE session_id = %2$L$$,
	$$UPDATE user_sessions SET revoked_at = now() WHERE session_id = %2$L$$]) AS change,
	test.after_change(format(change, :'s_session_token', :'s_session_id'), :'i_session_token')
GROUP BY change ORDER BY change;
-- so it does if something else has written the actor's row, which then is good for nothing
SELECT change, outcome
FROM unnest(ARRAY[
	$$user_id = 'root'$$, $$state_mac = NULL$$, $$expires_at = expires_at + interval '1 s'$$, $$idle_timeout = '1 day'$$,
	$$actor_session_id = session_id$$, $$actor_session_id = session_id, actor_id = user_id$$, $$revoked_at = now(), revoked_reason = 'x'$$]) AS change,
	test.after_change(format('UPDATE user_sessions SET %s WHERE session_id = %L', change, :'s_session_id'), :'i_session_token')
WHERE call = 'session_get' ORDER BY change;
-- What does not end the actor's session does not end it.
SELECT change, outcome
FROM unnest(ARRAY[
	$$SELECT session_refresh(%1$L)$$,
	$$SELECT session_refresh(%1$L, rotate => true)$$,
	$$SELECT session_elevate(%1$L, '{"amr": ["otp"]}')$$,
	$$SELECT session_update(%1$L, '{"n": 1}')$$,
	$$SELECT session_update_user('staff', '{"n": 1}')$$]) AS change,
	test.after_change(format(change, :'s_session_token'), :'i_session_token')
WHERE call = 'session_get' ORDER BY change;
-- A key that is revoked ends it as well.
SELECT key_id AS active FROM session_keys() WHERE state = 'active' \gset
SELECT session_key_generate() AS other \gset
SELECT session_key_activate(:other);
SELECT session_id, session_token FROM session_create('staff') \gset k_
SELECT session_key_activate(:active);
SELECT session_token FROM session_create('alice', actor_token => :'k_session_token') \gset ki_
SELECT outcome FROM test.after_change('SELECT', :'ki_session_token') WHERE call = 'session_get';
SELECT string_agg(call || ' ' || coalesce(outcome, '-'), ', ')
FROM test.after_change(format('SELECT session_key_revoke(%s)', :other), :'ki_session_token') WHERE call IN ('session_get', 'session_status');

-- Nobody who writes the table without the key makes, changes or removes an actor.
SELECT session_id, session_token FROM session_create('alice') \gset a_
SELECT session_id, session_token FROM session_create('boss') \gset b_
SELECT change, outcome
FROM unnest(ARRAY[
	$$actor_id = NULL$$, $$actor_session_id = NULL$$, $$actor_id = NULL, actor_session_id = NULL$$, $$actor_id = 'boss'$$, $$actor_id = ''$$,
	$$actor_session_id = %1$L$$, $$actor_session_id = %1$L, actor_id = 'boss'$$]) AS change,
	test.after_change(format('UPDATE user_sessions SET ' || change || ' WHERE session_id = %2$L', :'b_session_id', :'i_session_id'), :'i_session_token')
WHERE call = 'session_get' ORDER BY change;
SELECT change, outcome
FROM unnest(ARRAY[
	$$actor_id = 'boss'$$, $$actor_session_id = %1$L$$, $$actor_session_id = %1$L, actor_id = 'boss'$$]) AS change,
	test.after_change(format('UPDATE user_sessions SET ' || change || ' WHERE session_id = %2$L', :'b_session_id', :'a_session_id'), :'a_session_token')
WHERE call = 'session_get' ORDER BY change;

-- It neither counts against the user's limit nor makes room for itself.
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
SELECT session_token FROM session_create('staff') \gset s_
SET session_manager.max_sessions_per_user = 1;
SELECT session_token FROM session_create('alice', tenant_id => 'first') \gset a_
SELECT count(*) FROM generate_series(1, 3) AS n, session_create('alice', jsonb_build_object('n', n), tenant_id => 'acted', actor_token => :'s_session_token');
SELECT count(*) FROM session_get(:'a_session_token');
SELECT count(*) FROM session_create('alice', tenant_id => 'second');
SELECT tenant_id, count(*) FROM session_list('alice') GROUP BY tenant_id ORDER BY tenant_id;
SET session_manager.on_limit = deny;
CALL test.error($$SELECT session_create('alice')$$);
SELECT count(*) FROM session_create('alice', tenant_id => 'acted', actor_token => :'s_session_token');
RESET session_manager.max_sessions_per_user;
RESET session_manager.on_limit;
-- but what is done to the user's sessions is done to it
SELECT session_update_user('alice', '{"plan": "pro"}', 'acted');
SELECT session_invalidate_all('alice');
SELECT session_invalidate_all('alice');

-- Cleanup deletes it when the actor's session is over, and leaves it while that lives.
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
SELECT session_id, session_token FROM session_create('staff', ttl => '1 hour') \gset s_
SELECT session_id, session_token FROM session_create('staff', ttl => '1 hour') \gset t_
SELECT session_id FROM session_create('alice', actor_token => :'s_session_token') \gset i_
SELECT session_id FROM session_create('alice', actor_token => :'t_session_token') \gset j_
SELECT sweep_at <= s.expires_at AS in_time FROM user_sessions AS i, LATERAL (SELECT expires_at FROM user_sessions AS s WHERE s.session_id = i.actor_session_id) AS s
WHERE user_id = 'alice';
SELECT session_invalidate(:'s_session_token');
UPDATE user_sessions SET sweep_at = now() WHERE user_id = 'alice';
SELECT sessions_deleted, sessions_requeued FROM session_cleanup();
SELECT session_id = :'j_session_id' AS kept, sweep_at > now() AS again FROM user_sessions WHERE user_id = 'alice';
SELECT event, detail FROM test.events(:'i_session_id');

-- What is held about the user names the actor; erasing the actor takes the name
-- away, not what happened.
SELECT s ->> 'actor_id' AS actor FROM jsonb_array_elements(session_export('alice')::jsonb -> 'sessions') AS s;
SELECT e ->> 'event' AS event, e #>> '{detail,session_id}' IN (:'i_session_id', :'j_session_id') AS impersonation
FROM jsonb_array_elements(session_export('staff')::jsonb -> 'events') AS e ORDER BY 1, 2;
SELECT session_export('staff') ~ 'alice' AS names_the_user;
SELECT session_id, session_token FROM session_create('alice') \gset a_
SELECT session_erase('staff');
SELECT count(*) FROM session_get(:'a_session_token');
SELECT session_id = :'a_session_id' AS own FROM user_sessions WHERE user_id = 'alice';
SELECT event, detail FROM test.events(:'j_session_id');
SELECT count(*) FROM session_events WHERE session_events::text ~ 'staff';
SELECT count(*) FROM user_sessions WHERE user_sessions::text ~ 'staff';
-- erasing the user leaves nothing of the user with the actor
SELECT session_token FROM session_create('staff') \gset s_
SELECT count(*) FROM session_create('alice', actor_token => :'s_session_token');
SELECT session_erase('alice');
SELECT event, detail - 'session_id' AS detail FROM session_events WHERE user_id = 'staff' ORDER BY event COLLATE "C";
SELECT count(*) FROM session_events WHERE session_events::text ~ 'alice';
SELECT count(*) FROM session_get(:'s_session_token');

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
