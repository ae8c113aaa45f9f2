--
-- Content and shape of the tables that no function of the extension makes: no
-- crash, no internal error, and no token that works
--
SELECT session_id, session_token FROM session_create('mal', '{"n": 1}', tenant_id => 'acme', auth => '{"amr": ["pwd"]}', ip => '192.0.2.1', user_agent => 'ua') \gset a_
SELECT session_id, session_token FROM session_create('mal', '{"n": 2}', tenant_id => 'acme') \gset b_
SELECT session_id, session_token FROM session_create('mallory', '{"n": 3}') \gset c_
SELECT session_id, session_token FROM session_create('mal', '{"n": 4}', idle_timeout => '1 hour', actor_token => :'c_session_token') \gset d_
-- the replaced token works to the end, however slow the machine is
SET session_manager.rotation_grace = '1h';
SELECT session_token FROM session_refresh(:'a_session_token', rotate => true) \gset a2_

-- An administrator's own revocation gives no reason.
BEGIN;
UPDATE user_sessions SET revoked_at = now() WHERE session_id = :'b_session_id';
SELECT count(*), count(ended_at) AS ended, count(ended_reason) AS reasons FROM session_list('mal', include_ended => true);
SELECT count(*) FROM session_get(:'b_session_token');
ROLLBACK;

-- Every function that reads a table, on rows of which it may find anything
CREATE TABLE test.calls (call text);
INSERT INTO test.calls
SELECT format(call, token)
FROM unnest(ARRAY[:'a_session_token', :'a2_session_token', :'c_session_token', :'d_session_token']) AS token,
	unnest(ARRAY[
		$$SELECT * FROM public.session_get(%L)$$,
		$$SELECT * FROM public.session_get(%L, '192.0.2.2', 'other', true)$$,
		$$SELECT * FROM public.session_update(%L, '{"x": 1}')$$,
		$$SELECT * FROM public.session_refresh(%L)$$,
		$$SELECT * FROM public.session_refresh(%L, rotate => true, ip => '192.0.2.2', user_agent => 'other')$$,
		$$SELECT * FROM public.session_elevate(%L, '{"amr": ["otp"]}')$$,
		$$SELECT * FROM public.session_switch_tenant(%L, 'globex')$$,
		$$SELECT public.session_invalidate(%L)$$,
		$$SELECT * FROM public.session_create('bob', actor_token => %L)$$,
		$$SELECT public.session_bind(%L), public.session_user_id(), public.session_tenant_id(), public.session_actor_id(), public.session_id()$$,
		$$SELECT public.session_status(%L)$$,
		$$SELECT public.session_end_reason(%L)$$,
		$$SELECT public.session_invalidate_all('mal', except_token => %L)$$,
		$$SELECT * FROM public.session_list('mal', current_token => %L, include_ended => true)$$]) AS call;
INSERT INTO test.calls
SELECT format(call, :'a_session_id')
FROM unnest(ARRAY[
	$$SELECT * FROM public.session_create('mal')$$,
	$$SELECT public.session_invalidate_id('%1$s')$$,
	$$SELECT public.session_invalidate_id('%1$s', 'mal')$$,
	$$SELECT public.session_invalidate_tenant('acme')$$,
	$$SELECT public.session_invalidate_everything()$$,
	$$SELECT public.session_update_user('mal', '{"x": 1}')$$,
	$$SELECT public.session_update_user('mal', '{"x": 1}', 'acme')$$,
	$$SELECT * FROM public.session_list('mal', include_ended => true)$$,
	$$SELECT public.session_active_count(), public.session_active_count('acme'), public.session_active_count('acme', 'mal')$$,
	$$SELECT * FROM public.session_history('%1$s')$$,
	$$SELECT * FROM public.session_history(user_id => 'mal')$$,
	$$SELECT * FROM public.session_cleanup()$$,
	$$SELECT public.session_export('mal')$$,
	$$SELECT public.session_erase('mal')$$,
	$$SELECT public.session_reencrypt()$$,
	$$SELECT * FROM public.session_keys()$$,
	$$SELECT public.session_key_retire(max(key_id)) FROM public.session_keys$$,
	$$SELECT public.session_key_activate(max(key_id)) FROM public.session_keys$$,
	$$SELECT public.session_key_revoke(max(key_id)) FROM public.session_keys$$,
	$$SELECT public.session_key_add(77)$$,
	$$SELECT * FROM public.session_info()$$,
	$$SELECT * FROM public.session_cache_settings()$$,
	$$SELECT * FROM public.session_counters()$$]) AS call;

-- SQLSTATE of a call, which is then undone
CREATE FUNCTION test.state(call text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
	RAISE SQLSTATE 'OK000';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
-- SQLSTATEs of the calls after a change, which is then undone
CREATE FUNCTION test.after(change text, calls text = '') RETURNS TABLE (call text, state text)
LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	BEGIN
		EXECUTE change;
		SELECT jsonb_agg(jsonb_build_array(c.call, test.state(c.call))) INTO result
		FROM test.calls c WHERE position(calls IN c.call) > 0;
		RAISE SQLSTATE 'OK000';
	EXCEPTION WHEN SQLSTATE 'OK000' THEN
		RETURN QUERY SELECT r ->> 0, r ->> 1 FROM jsonb_array_elements(result::jsonb) AS r;
	WHEN OTHERS THEN	-- a constraint has refused it
		RETURN QUERY SELECT change, SQLSTATE;
	END;
END
$$;
-- every column of a table with every value that could be in it
CREATE FUNCTION test.values_of(relation regclass) RETURNS TABLE (change text)
LANGUAGE sql AS $$
	SELECT format('UPDATE %s SET %I = %s', relation, attname, value)
	FROM pg_attribute, LATERAL (
		SELECT 'NULL' AS value
		UNION ALL
		SELECT format('%L::%s', v, format_type(atttypid, NULL))
		FROM unnest(CASE format_type(atttypid, NULL)
			WHEN 'timestamp with time zone' THEN ARRAY['-infinity', 'infinity', '4714-11-24 00:00:00+00 BC', '294276-12-31 23:59:59.999999+00', 'epoch', '2100-01-01']
			WHEN 'integer' THEN ARRAY['0', '-1', '-2147483648', '2147483647', '1']
			WHEN 'bigint' THEN ARRAY['0', '-9223372036854775808', '9223372036854775807']
			WHEN 'text' THEN ARRAY['', 'x', repeat('x', 512), repeat('x', 513), repeat('x', 100000), 'revoked', 'active', 'added']
			WHEN 'bytea' THEN ARRAY['', '\x00', '\x' || repeat('00', 31), '\x' || repeat('00', 33), '\x' || repeat('01', 90), '\x01' || repeat('00', 105), '\x' || repeat('5a', 100000)]
			WHEN 'interval' THEN ARRAY['0', '1 month', '-178000000 years', '178000000 years', '2562047788 hours', '-2562047788 hours']
			WHEN 'inet' THEN ARRAY['0.0.0.0/0', '::/0', '::ffff:192.0.2.1', '255.255.255.255']
			WHEN 'uuid' THEN ARRAY['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']
			WHEN 'jsonb' THEN ARRAY['1', '{}', '[]']
			WHEN 'boolean' THEN ARRAY['true', 'false']
		END) AS v
		UNION ALL
		-- what is of another row, or of another column of the type
		SELECT format('(SELECT %I FROM %s AS other WHERE other.ctid <> %2$s.ctid LIMIT 1)', attname, relation)
		UNION ALL
		SELECT quote_ident(other.attname)
		FROM pg_attribute AS other
		WHERE other.attrelid = relation AND other.attnum > 0 AND NOT other.attisdropped
			AND other.atttypid = pg_attribute.atttypid AND other.attnum <> pg_attribute.attnum
	) AS value
	WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
$$;

-- as the table's owner can have it
BEGIN;
SET LOCAL client_min_messages = error;
SET LOCAL session_manager.client_binding = log;
SET LOCAL session_manager.max_sessions_per_user = 2;
ALTER TABLE user_sessions DROP CONSTRAINT user_sessions_pkey;
CREATE UNIQUE INDEX user_sessions_pkey ON user_sessions (session_id);
ALTER TABLE session_keys DROP CONSTRAINT session_keys_pkey,
	DROP CONSTRAINT session_keys_id_positive, DROP CONSTRAINT session_keys_state,
	DROP CONSTRAINT session_keys_check_value, DROP CONSTRAINT session_keys_revoked;
DROP INDEX session_keys_one_active;
ALTER TABLE session_installation DROP CONSTRAINT session_installation_pkey,
	DROP CONSTRAINT session_installation_singleton;
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT attrelid::regclass AS relation, attname FROM pg_attribute
		WHERE attrelid = ANY ('{user_sessions, session_keys, session_installation, session_outbox}'::regclass[])
			AND attnum > 0 AND attnotnull
	LOOP
		EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', c.relation, c.attname);
	END LOOP;
END
$$;
DELETE FROM user_sessions WHERE user_id NOT IN ('mal', 'mallory');
SELECT attrelid::regclass AS not_null FROM pg_attribute
WHERE attrelid = ANY ('{user_sessions, session_keys, session_installation, session_outbox}'::regclass[])
	AND attnum > 0 AND attnotnull;
SELECT count(*) > 200 AS many_changes, sum(n) > 10000 AS many_calls
FROM (SELECT (SELECT count(*) FROM test.calls) AS n FROM test.values_of('user_sessions')) AS s;
-- none of these may be an internal error
SELECT change, call, state
FROM test.values_of('user_sessions') AS change, test.after(change) AS t
WHERE test.is_tried(change) AND state LIKE 'XX%' ORDER BY 1, 2;
SELECT change, call, state
FROM unnest('{session_keys, session_installation, session_outbox}'::regclass[]) AS relation,
	test.values_of(relation) AS change, test.after(change) AS t
WHERE test.is_tried(change) AND state LIKE 'XX%' ORDER BY 1, 2;
SELECT call, state FROM test.after('DELETE FROM session_installation') WHERE state LIKE 'XX%';
SELECT call, state FROM test.after('INSERT INTO session_keys SELECT * FROM session_keys; INSERT INTO session_installation SELECT * FROM session_installation') WHERE state LIKE 'XX%';
-- a row that lacks anything is dead, listed as such, and swept
UPDATE user_sessions SET sealed_data = NULL WHERE session_id = :'b_session_id';
SELECT count(*) FROM session_get(:'b_session_token');
SELECT session_status(:'b_session_token');
SELECT ended_at, ended_reason FROM session_list('mal', include_ended => true) WHERE session_id = :'b_session_id';
UPDATE user_sessions SET sweep_at = clock_timestamp() WHERE session_id = :'b_session_id';
SELECT sessions_deleted FROM session_cleanup();
ROLLBACK;

-- Every column that the library reads by its number
SELECT attrelid::regclass AS relation, count(*) AS changes,
	count(*) FILTER (WHERE state NOT IN ('55000', '42P01')) AS not_refused
FROM pg_attribute, LATERAL (VALUES
		(format('ALTER TABLE %s DROP COLUMN %I CASCADE', attrelid::regclass, attname)),
		(format('ALTER TABLE %s RENAME COLUMN %I TO other', attrelid::regclass, attname))) AS t(change),
	LATERAL (SELECT state FROM test.after(change, 'session_get') LIMIT 1) AS s
WHERE attrelid = ANY ('{user_sessions, session_keys, session_installation, session_outbox}'::regclass[])
	AND attnum > 0
GROUP BY attrelid ORDER BY attrelid::regclass::text COLLATE "C";
-- what is left of a row when it is written anew
SELECT DISTINCT state FROM test.after('ALTER TABLE user_sessions DROP COLUMN verifier; CLUSTER user_sessions USING user_sessions_pkey');
-- types, collations and indexes
SELECT change, (SELECT DISTINCT state FROM test.after(change, 'session_get')) AS state
FROM unnest(ARRAY[
	'ALTER TABLE user_sessions ALTER COLUMN version TYPE bigint',
	'ALTER TABLE user_sessions ALTER COLUMN user_agent TYPE varchar(10)',
	'ALTER TABLE user_sessions ALTER COLUMN user_id TYPE text COLLATE "POSIX"',
	'ALTER TABLE session_keys ALTER COLUMN key_id TYPE bigint',
	'ALTER TABLE session_events ALTER COLUMN event_id TYPE numeric',
	'ALTER TABLE session_events RENAME COLUMN user_agent TO agent',
	'DROP INDEX user_sessions_user_id_idx',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON user_sessions (tenant_id)',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON user_sessions (user_id) WHERE tenant_id IS NULL',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON user_sessions USING hash (user_id)',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON user_sessions (user_id COLLATE "POSIX")',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON user_sessions (user_id text_pattern_ops)',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON user_sessions (lower(user_id))',
	'DROP INDEX user_sessions_user_id_idx; CREATE INDEX user_sessions_user_id_idx ON session_keys (state)',
	'DROP INDEX user_sessions_tenant_id_idx',
	'DROP INDEX user_sessions_tenant_id_idx; CREATE INDEX user_sessions_tenant_id_idx ON user_sessions (tenant_id)',
	'DROP INDEX user_sessions_tenant_id_idx; CREATE INDEX user_sessions_tenant_id_idx ON user_sessions (tenant_id) WHERE user_agent IS NOT NULL',
	'DROP INDEX user_sessions_tenant_id_idx; CREATE INDEX user_sessions_tenant_id_idx ON user_sessions (tenant_id) WHERE tenant_id IS NULL',
	'DROP INDEX user_sessions_tenant_id_idx; CREATE INDEX user_sessions_tenant_id_idx ON user_sessions (tenant_id) WHERE version > 0',
	'DROP INDEX user_sessions_tenant_id_idx; CREATE INDEX user_sessions_tenant_id_idx ON user_sessions (tenant_id) WHERE tenant_id IS NOT NULL AND version > 1',
	'DROP INDEX user_sessions_sweep_at_idx; CREATE INDEX user_sessions_sweep_at_idx ON user_sessions (expires_at)',
	'ALTER TABLE user_sessions DROP CONSTRAINT user_sessions_pkey; CREATE INDEX user_sessions_pkey ON user_sessions (session_id)',
	'ALTER TABLE user_sessions DROP CONSTRAINT user_sessions_pkey, ADD CONSTRAINT user_sessions_pkey PRIMARY KEY (session_id) DEFERRABLE'
]) AS change;
-- what is added behind is the owner's
SELECT change, (SELECT string_agg(DISTINCT state, ' ') FROM test.after(change, 'session_get')) AS state
FROM unnest(ARRAY[
	'ALTER TABLE user_sessions ADD COLUMN note text',
	'ALTER TABLE user_sessions ADD COLUMN note text; ALTER TABLE user_sessions DROP COLUMN note',
	'ALTER TABLE session_keys ADD COLUMN note text',
	'ALTER TABLE session_events ADD COLUMN note text']) AS change;
-- what functions return
SELECT change, (SELECT string_agg(DISTINCT state, ' ') FROM test.after(change, 'session_get')) AS state
FROM unnest(ARRAY[
	'ALTER TYPE live_session ADD ATTRIBUTE note text',
	'ALTER TYPE live_session DROP ATTRIBUTE cacheable',
	'ALTER TYPE live_session DROP ATTRIBUTE user_id, ADD ATTRIBUTE user_id text',
	'ALTER TYPE live_session ALTER ATTRIBUTE version TYPE text']) AS change;
SELECT (SELECT DISTINCT state FROM test.after('ALTER TABLE session_events ADD COLUMN note text', 'session_history')) AS history;
BEGIN;
ALTER TYPE live_session ADD ATTRIBUTE note text;
CALL test.error($$SELECT * FROM session_get('sm1_')$$);
CALL test.error(format('SELECT * FROM session_get(%L)', :'c_session_token'));
ROLLBACK;
BEGIN;
ALTER TABLE user_sessions RENAME COLUMN user_id TO username;
CALL test.error(format('SELECT * FROM session_get(%L)', :'c_session_token'));
ROLLBACK;
BEGIN;
DROP INDEX user_sessions_user_id_idx;
CREATE INDEX user_sessions_user_id_idx ON user_sessions (user_id) WHERE tenant_id IS NULL;
CALL test.error($$SELECT session_invalidate_all('mal')$$);
ROLLBACK;
-- a partition that has the columns in another order gets events all the same
BEGIN;
CREATE TABLE test.other_order (event_id bigint NOT NULL, at timestamptz NOT NULL, session_id uuid, tenant_id text COLLATE "C",
	user_id text COLLATE "C", event text NOT NULL, ip inet, user_agent text, detail jsonb);
DO $$
DECLARE
	partition regclass;
BEGIN
	FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'session_events'::regclass LOOP
		EXECUTE format('ALTER TABLE session_events DETACH PARTITION %s', partition);
	END LOOP;
END
$$;
ALTER TABLE session_events ATTACH PARTITION test.other_order DEFAULT;
ALTER TABLE session_events_default RENAME TO session_events_other;
ALTER TABLE test.other_order RENAME TO session_events_default;
ALTER TABLE test.session_events_default SET SCHEMA public;
SELECT DISTINCT state FROM test.after('SELECT 1', 'session_create');
SELECT count(*) FROM session_create('mal', tenant_id => 'acme');
SELECT tenant_id, user_id, event FROM session_events_default WHERE tenant_id = 'acme';
ROLLBACK;

SELECT session_erase('mal') AS mal, session_erase('mallory') AS mallory;
DROP TABLE test.calls;
