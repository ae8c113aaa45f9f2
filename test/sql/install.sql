--
-- What CREATE EXTENSION makes, and the helpers of the tests that follow
--
-- The tests run in the order of the Makefile, in one database.  Tokens and
-- ids are random: they are kept in psql variables and never printed.
--
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_session_app, regress_session_admin,
	regress_session_monitor, regress_session_nobody;
RESET client_min_messages;

CREATE EXTENSION session_manager;	-- needs pgcrypto
CREATE EXTENSION session_manager CASCADE;
SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'session_manager';
ALTER EXTENSION session_manager SET SCHEMA pg_catalog;

-- Members
CREATE SCHEMA test;
GRANT USAGE ON SCHEMA test TO PUBLIC;
CREATE VIEW test.members AS
SELECT classid, objid, pg_describe_object(classid, objid, objsubid) AS object
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'session_manager')
  AND deptype = 'e'
  AND classid <> 'pg_type'::regclass;	-- row types are members since PostgreSQL 17
SELECT object FROM test.members ORDER BY object COLLATE "C";

-- Every member, column, index and trigger has a comment: no rows.
SELECT object FROM test.members
WHERE obj_description(objid, classid::regclass::name) IS NULL;
SELECT attrelid::regclass, attname FROM pg_attribute JOIN test.members ON attrelid = objid
WHERE classid = 'pg_class'::regclass AND attnum > 0 AND object ~ '^table'
  AND attrelid <> 'session_events_default'::regclass	-- has those of its parent
  AND col_description(attrelid, attnum) IS NULL;
SELECT indexrelid::regclass FROM pg_index JOIN test.members ON indrelid = objid
WHERE classid = 'pg_class'::regclass AND NOT indisprimary
  AND obj_description(indexrelid, 'pg_class') IS NULL;
SELECT tgname FROM pg_trigger JOIN test.members ON tgrelid = objid
WHERE classid = 'pg_class'::regclass AND NOT tgisinternal
  AND obj_description(pg_trigger.oid, 'pg_trigger') IS NULL;
SELECT obj_description(oid, 'pg_extension') FROM pg_extension
WHERE extname = 'session_manager';

-- Dump and restore carry every table and sequence, whole, and none of them
-- holds a row that an install seeds.
SELECT relation, condition
FROM pg_extension, unnest(extconfig::regclass[], extcondition) AS c(relation, condition)
WHERE extname = 'session_manager' ORDER BY relation::text COLLATE "C";
SELECT object FROM test.members, pg_extension
WHERE extname = 'session_manager' AND classid = 'pg_class'::regclass
  AND objid <> ALL (extconfig) AND object NOT LIKE 'view %'
  AND object NOT IN ('table session_activity', 'table session_outbox');
SELECT (SELECT count(*) FROM session_installation) AS installations,
	(SELECT count(*) FROM session_keys) AS keys,
	(SELECT count(*) FROM user_sessions) AS sessions,
	(SELECT count(*) FROM session_events) AS events;

-- Storage: room for HOT updates, no attempt to compress ciphertext, no index
-- on a column that a frequent write changes, none inherited by a partition.
SELECT reloptions FROM pg_class WHERE oid = 'user_sessions'::regclass;
SELECT attstorage FROM pg_attribute
WHERE attrelid = 'user_sessions'::regclass AND attname = 'sealed_data';
SELECT pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = ANY (ARRAY['user_sessions', 'session_events', 'session_events_default']::regclass[])
ORDER BY indexrelid::regclass::text COLLATE "C";

-- Functions: none leakproof, all but the audit in C, and each that runs
-- with its owner's rights has a search_path that ends in pg_temp.
SELECT p.oid::regprocedure AS function, provolatile, proparallel, proisstrict, prosecdef, proconfig
FROM pg_proc p JOIN test.members ON p.oid = objid AND classid = 'pg_proc'::regclass
ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure
FROM pg_proc p JOIN test.members ON p.oid = objid AND classid = 'pg_proc'::regclass
WHERE proleakproof OR prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')
   OR prosecdef AND ('search_path=pg_catalog, pg_temp' = ANY (proconfig)) IS NOT TRUE;

-- Settings: all described, none that SQL of an application's role can change
LOAD 'session_manager';
-- (touch_slots exists only where the library is preloaded)
SELECT name, vartype, unit, context, boot_val, min_val, max_val, enumvals
FROM pg_settings WHERE name LIKE 'session\_manager.%' AND name <> 'session_manager.touch_slots' ORDER BY name COLLATE "C";
SELECT name FROM pg_settings WHERE name LIKE 'session\_manager.%'
AND (short_desc IS NULL OR context NOT IN ('superuser', 'sighup', 'postmaster'));
SET session_manager.no_such_setting = 1;
SET session_manager.key_file = '/nowhere';
SET session_manager.shard = '1/2';
ALTER SYSTEM SET session_manager.shard = '3/2';
ALTER SYSTEM SET session_manager.shard = '0/2';
ALTER SYSTEM SET session_manager.shard = '1/65537';
ALTER SYSTEM SET session_manager.shard = '1/2x';
ALTER SYSTEM SET session_manager.shard = '1/4,';
ALTER SYSTEM SET session_manager.shard = '1/4 2/4';
ALTER SYSTEM SET session_manager.shard = '-1-5';
ALTER SYSTEM SET session_manager.shard = '9-8';
ALTER SYSTEM SET session_manager.shard = '0000165535';
ALTER SYSTEM SET session_manager.shard = '0-65536';
ALTER SYSTEM SET session_manager.shard = '1/2, 32767-40000';
ALTER SYSTEM SET session_manager.shard = 'none,1/2';
\set VERBOSITY sqlstate
SET session_manager.ttl = 0;
SET session_manager.max_sessions_per_user = -1;
\set VERBOSITY default
SET session_manager.client_binding = maybe;

--
-- Helpers
--

-- Whether a test that goes through very many cases is to try this one: all of them,
-- or one in test.one_in, which the configuration of a very slow server says.
CREATE FUNCTION test.is_tried(what text) RETURNS boolean
LANGUAGE sql AS $$
	SELECT coalesce(hashtext(what) % current_setting('test.one_in', true)::integer = 0, true)
$$;
-- Run a command that fails and show all that its error says, with what is
-- random in it masked.
CREATE PROCEDURE test.error(command text)
LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE command;
	RAISE INFO 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	message := state || ': ' || regexp_replace(message,
		'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '<uuid>', 'g');
	detail := regexp_replace(detail,
		'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '<uuid>', 'g');
	hint := regexp_replace(hint,
		'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '<uuid>', 'g');
	IF detail <> '' AND hint <> '' THEN
		RAISE INFO USING MESSAGE = message, DETAIL = detail, HINT = hint;
	ELSIF detail <> '' THEN
		RAISE INFO USING MESSAGE = message, DETAIL = detail;
	ELSIF hint <> '' THEN
		RAISE INFO USING MESSAGE = message, HINT = hint;
	ELSE
		RAISE INFO USING MESSAGE = message;
	END IF;
END
$$;

-- Lines that a command prints on the server
CREATE FUNCTION test.shell(command text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMPORARY TABLE shell_output (line text);
	EXECUTE format('COPY shell_output FROM PROGRAM %L', command);
	RETURN QUERY SELECT line FROM shell_output;
	DROP TABLE shell_output;
END
$$;

-- Statements, for \gexec, that change a setting of the cluster (or, with no
-- name, only reload the configuration) and wait until this backend has seen it
CREATE FUNCTION test.configure(name text DEFAULT NULL, value text DEFAULT NULL)
RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	IF name IS NOT NULL AND value IS NULL THEN
		RETURN NEXT format('ALTER SYSTEM RESET %s', name);
	ELSIF name IS NOT NULL THEN
		RETURN NEXT format('ALTER SYSTEM SET %s = %L', name, value);
	END IF;
	RETURN NEXT 'DO ''BEGIN PERFORM pg_reload_conf(); END''';
	FOR i IN 1..50 LOOP
		RETURN NEXT format('DO %L', format('BEGIN IF pg_conf_load_time() = %L THEN PERFORM pg_sleep(0.2); END IF; END',
			pg_conf_load_time()));
	END LOOP;
END
$$;

-- Types and details of a session's events, in order
CREATE FUNCTION test.events(id uuid) RETURNS TABLE (event text, detail jsonb)
LANGUAGE sql AS $$
	SELECT event, detail FROM public.session_events
	WHERE session_id = id ORDER BY event_id;
$$;

-- A token with one character changed
CREATE FUNCTION test.change_char(token text, pos integer) RETURNS text
LANGUAGE sql AS $$
	SELECT overlay(token PLACING CASE substr(token, pos, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM pos FOR 1);
$$;

-- base64url without padding (RFC 4648, section 5)
CREATE FUNCTION test.base64url(bytes bytea) RETURNS text
LANGUAGE sql AS $$
	SELECT translate(encode(bytes, 'base64'), E'+/=\n', '-_');
$$;
CREATE FUNCTION test.unbase64url(body text) RETURNS bytea
LANGUAGE sql AS $$
	SELECT decode(translate(body, '-_', '+/') || repeat('=', -length(body) & 3), 'base64');
$$;

-- A time of session_get_json
CREATE FUNCTION test.at(session json, member text) RETURNS timestamptz
RETURN to_timestamp(0) + (session ->> member)::bigint * interval '1 microsecond';

-- session_get by session_get_json, for a run of all these tests with as_json
-- in front of the search_path
CREATE SCHEMA as_json;
GRANT USAGE ON SCHEMA as_json TO PUBLIC;
CREATE FUNCTION as_json.session_get(token text, ip inet DEFAULT NULL, user_agent text DEFAULT NULL, touch boolean DEFAULT true)
RETURNS TABLE (session_id uuid, user_id text, tenant_id text, data jsonb, version integer, auth jsonb,
	created_at timestamptz, authenticated_at timestamptz, last_seen_at timestamptz, expires_at timestamptz,
	absolute_expires_at timestamptz, cacheable boolean, actor_id text, device_proved_at timestamptz)
LANGUAGE sql ROWS 1 AS $$
	SELECT (j ->> 'session_id')::uuid, j ->> 'user_id', j ->> 'tenant_id', (j -> 'data')::jsonb,
		(j ->> 'version')::integer, nullif((j -> 'auth')::jsonb, 'null'),
		test.at(j, 'created_at'), test.at(j, 'authenticated_at'), test.at(j, 'last_seen_at'),
		test.at(j, 'expires_at'), test.at(j, 'absolute_expires_at'),
		(j ->> 'cacheable')::boolean, j ->> 'actor_id', test.at(j, 'device_proved_at')
	FROM public.session_get_json(token, ip, user_agent, touch) AS j
	WHERE j IS NOT NULL;
$$;

-- A refresh or elevation as it can be shown: the token only as a boolean
CREATE FUNCTION test.shown(r record) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN format('%s id=%s user=%s token=%s expires=%s absolute=%s', r.status, r.session_id IS NOT NULL,
		r.user_id, r.session_token IS NOT NULL, r.expires_at IS NOT NULL, r.absolute_expires_at IS NOT NULL);
END
$$;

-- A login from a device
CREATE FUNCTION test.login(user_id text, device text, tenant_id text DEFAULT NULL)
RETURNS TABLE (session_id uuid, session_token text)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT c.session_id, c.session_token
	FROM public.session_create(user_id, '{"secret": "data"}', ip => '192.0.2.1', user_agent => device,
		tenant_id => tenant_id, auth => jsonb_build_object('device', device)) AS c;
END
$$;

-- The partitions of the events
CREATE VIEW test.partition AS
SELECT inhrelid::regclass AS name,
	substring(pg_get_expr(relpartbound, oid) FROM 'FROM \(''(.*?)''\)')::timestamptz AS "from",
	substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''(.*?)''\)')::timestamptz AS "to"
FROM pg_inherits JOIN pg_class ON oid = inhrelid
WHERE inhparent = 'session_events'::regclass AND pg_get_expr(relpartbound, oid) <> 'DEFAULT';
CREATE FUNCTION test.drop_partitions(since timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	partition regclass;
BEGIN
	FOR partition IN SELECT name FROM test.partition WHERE "from" > since LOOP
		EXECUTE format('DROP TABLE %s', partition);
	END LOOP;
END
$$;

-- Roles that the tests grant the bundles to
CREATE ROLE regress_session_app;
CREATE ROLE regress_session_admin;
CREATE ROLE regress_session_monitor;
CREATE ROLE regress_session_nobody;

-- The key file of the tests, and what ALTER SYSTEM had configured before
CREATE TABLE test.key_file AS
SELECT (SELECT setting FROM pg_file_settings
		WHERE name = 'session_manager.key_file' AND sourcefile ~ 'postgresql\.auto\.conf$') AS original,
	test.shell('mktemp -d') || '/keys' AS path;
SELECT count(*) FROM test.key_file;
