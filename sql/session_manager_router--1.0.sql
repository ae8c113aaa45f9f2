/* session_manager_router--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION session_manager_router CASCADE" to load this file. \quit

--
-- The functions of session_manager, with its signatures, in front of several
-- servers (shards) that have the extension in a schema of the same name.
--
-- A public function finds the part of the sessions that a call is about, and
-- has a function of the same name in the schema session_router call the shard
-- of that part by PL/Proxy.  The public ones are SECURITY DEFINER, so that only
-- this extension's owner needs rights on the server session_shards, whose user
-- mapping may hold a password.  Those that are called for every request have no
-- setting of search_path, which would cost more than all else in them: every
-- name in them has its schema, and there are no operators.
--

CREATE SCHEMA session_router;

COMMENT ON SCHEMA session_router IS 'calls of single shards, for the functions of session_manager_router';

--
-- Values.  The library of session_manager computes them here.
--

CREATE FUNCTION session_token_digest(token text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_token_digest'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION session_token_digest(text) IS
'digest form (sd1_) of a token, which is accepted wherever a token is but does not work as a cookie';

CREATE FUNCTION session_bucket(user_id text)
RETURNS integer
AS 'MODULE_PATHNAME', 'sm_session_bucket_user'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION session_bucket(text) IS
'bucket 0 to 65535 of a user: SipHash-2-4 of the UTF-8 id under a published key, for routing to shards';

CREATE FUNCTION session_bucket(session_id uuid)
RETURNS integer
AS 'MODULE_PATHNAME', 'sm_session_bucket_id'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION session_bucket(uuid) IS
'bucket 0 to 65535 of a session: the same as its user''s';

CREATE FUNCTION session_token_bucket(token text)
RETURNS integer
AS 'MODULE_PATHNAME', 'sm_session_token_bucket'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION session_token_bucket(text) IS
'bucket 0 to 65535 of a token or digest form, without looking for its session; null if it is malformed';

CREATE FUNCTION session_event_severity(event text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_event_severity'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION session_event_severity(text) IS
'info, notice, warning or critical; null for an unknown type of event';

--
-- Parts.  Part n of 16 has the buckets from 4096 n on.  What has no bucket is
-- refused, or answered by "no session", by any shard: here by that of part 0.
--

CREATE FUNCTION session_router.user_part(user_id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(@extschema@.session_bucket(user_id) >> 12, 0);

CREATE FUNCTION session_router.id_part(session_id uuid) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(@extschema@.session_bucket(session_id) >> 12, 0);

CREATE FUNCTION session_router.token_part(token text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(@extschema@.session_token_bucket(token) >> 12, 0);

-- A second token of a call: that of somebody else is none of this user's, and
-- this user's shard would refuse it as another shard's.
CREATE FUNCTION session_router.of_user(token text, user_id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN @extschema@.session_token_bucket(token) <> @extschema@.session_bucket(user_id)
	THEN NULL ELSE token END;

--
-- Errors.  PL/Proxy keeps the SQLSTATE of a shard's error, and puts words
-- before its texts.  Its own errors all are internal ones.
--

CREATE FUNCTION session_router.understand(INOUT state text, INOUT message text, INOUT detail text, INOUT hint text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- function(arguments): [database] REMOTE severity: message
	remote CONSTANT text[] := regexp_match(message, '^[^ ]+\(\d+\): \[[^]]*\] REMOTE ([^:]*): (.*)$');
	-- PL/Proxy function name(arguments): [database] libpq's function: message
	lost CONSTANT text[] := regexp_match(message, '^PL/Proxy function [^ ]+\(\d+\): (\[[^]]*\] PQ.*|query timeout.*|connect timeout.*)$');
BEGIN
	IF lost IS NOT NULL OR (remote[2] = '(null)' AND state = 'XX000') THEN
		state := '08006';
		message := 'a session shard does not answer';
		detail := coalesce(nullif(split_part(lost[1], E'\n', 1), ''), 'The shard has closed the connection.');
		hint := 'Sessions on the other shards are not affected.';
	ELSIF remote IS NOT NULL THEN
		message := remote[2];
		detail := regexp_replace(detail, '^Remote detail: ', '');
		hint := regexp_replace(hint, '^Remote hint: ', '');
	ELSIF state = 'XX000' AND message ~ '^Pl/Proxy: cluster not found' THEN
		state := '55000';
		message := 'the router does not know any shard';
		hint := 'Call session_router_create().';
	END IF;
END
$$;

COMMENT ON FUNCTION session_router.understand(text, text, text, text) IS
'what a shard has said, without the words that PL/Proxy puts before it; or that a shard does not answer';

CREATE FUNCTION session_router.fail(state text, message text, detail text, hint text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	it record := session_router.understand(state, message, detail, hint);
BEGIN
	IF it.detail <> '' AND it.hint <> '' THEN
		RAISE EXCEPTION USING ERRCODE = it.state, MESSAGE = it.message, DETAIL = it.detail, HINT = it.hint;
	ELSIF it.detail <> '' THEN
		RAISE EXCEPTION USING ERRCODE = it.state, MESSAGE = it.message, DETAIL = it.detail;
	ELSIF it.hint <> '' THEN
		RAISE EXCEPTION USING ERRCODE = it.state, MESSAGE = it.message, HINT = it.hint;
	END IF;
	RAISE EXCEPTION USING ERRCODE = it.state, MESSAGE = it.message;
END
$$;

COMMENT ON FUNCTION session_router.fail(text, text, text, text) IS
'raise the error that a call of a shard has ended with, as the shard would have raised it';

--
-- The map.  PL/Proxy knows the parts as the options p0 to p15 of a foreign
-- server, which pg_dump dumps as it does every server.  Every backend sees a
-- change in its next transaction at the latest; until then the shards refuse what
-- is no longer theirs.
--

CREATE FUNCTION session_router.checked(connection text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	keyword text;
	keywords text[];
BEGIN
	IF connection !~ '^\s*([a-z_]+\s*=\s*(''([^''\\]|\\.)*''|[^''\s\\]+)\s*)+$' OR connection IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the connection of a shard must be written as keyword = value',
			HINT = 'For example: host=/run/pgbouncer port=6432 dbname=sessions';
	END IF;
	SELECT array_agg(m[1]) INTO keywords
		FROM regexp_matches(connection, '([a-z_]+)\s*=\s*(?:''(?:[^''\\]|\\.)*''|[^''\s\\]+)', 'g') m;
	FOREACH keyword IN ARRAY ARRAY['user', 'password', 'sslpassword', 'oauth_client_secret', 'service'] LOOP
		IF keyword = ANY (keywords) THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('the connection of a shard must not have "%s"', keyword),
				DETAIL = 'Every role may read the options of a server.',
				HINT = 'ALTER USER MAPPING FOR PUBLIC SERVER session_shards, or use passfile.';
		END IF;
	END LOOP;
	IF NOT 'dbname' = ANY (keywords) OR NOT ('host' = ANY (keywords) OR 'hostaddr' = ANY (keywords)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the connection of a shard must have host and dbname';
	END IF;
	RETURN connection;
END
$$;

COMMENT ON FUNCTION session_router.checked(text) IS 'a connection that may stand in the map, or an error';

CREATE FUNCTION session_router_create(connections text[], role text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n CONSTANT integer := cardinality(connections);
BEGIN
	IF n IS NULL OR n NOT IN (1, 2, 4, 8, 16) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the first map must have 1, 2, 4, 8 or 16 shards',
			HINT = 'session_router_assign() gives parts to others afterwards.';
	END IF;
	IF role IS NULL OR role = '' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the role that the router has on the shards is required';
	END IF;
	EXECUTE (SELECT format('CREATE SERVER session_shards FOREIGN DATA WRAPPER plproxy OPTIONS (connection_lifetime ''1800'', %s)',
			string_agg(format('p%s %L', part, session_router.checked(connections[1 + part * n / 16])), ', ' ORDER BY part))
		FROM generate_series(0, 15) part);
	EXECUTE format('CREATE USER MAPPING FOR PUBLIC SERVER session_shards OPTIONS (user %L)', role);
END
$$;

COMMENT ON FUNCTION session_router_create(text[], text) IS
'make the map: 1, 2, 4, 8 or 16 shards with an equal share each, in the order of their buckets, and the role that the router has on them';

CREATE FUNCTION session_router_assign(parts integer[], connection text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF cardinality(parts) > 0 IS NOT TRUE OR (0 <= ALL (parts) AND 15 >= ALL (parts)) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the parts must be numbers from 0 to 15';
	END IF;
	EXECUTE (SELECT format('ALTER SERVER session_shards OPTIONS (%s)',
			string_agg(format('SET p%s %L', part, session_router.checked(connection)), ', '))
		FROM (SELECT DISTINCT unnest(parts)) p (part));
END
$$;

COMMENT ON FUNCTION session_router_assign(integer[], text) IS
'give parts to a shard: every transaction that begins after the commit uses it';

CREATE FUNCTION session_router_map() RETURNS TABLE (shard text, parts integer[], buckets int4multirange)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT option_value, array_agg(part ORDER BY part), range_agg(int4range(part << 12, (part + 1) << 12))
	FROM pg_foreign_server, pg_options_to_table(srvoptions),
		LATERAL (SELECT substr(option_name, 2)::integer) p (part)
	WHERE srvname = 'session_shards' AND option_name ~ '^p\d+$'
	GROUP BY option_value ORDER BY min(part)
$$;

COMMENT ON FUNCTION session_router_map() IS 'the shards, by their connections, with the parts and the buckets of each';

--
-- Every shard.  One after the other, each in a transaction of its own there:
-- what one does not do, the others have done.
--

CREATE FUNCTION session_router.each(query text, VARIADIC arguments text[] DEFAULT '{}')
RETURNS TABLE (shard text, parts integer[], answer jsonb, state text, message text, detail text, hint text)
LANGUAGE plpgsql VOLATILE ROWS 4
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	FOR shard, parts IN SELECT m.shard, m.parts FROM @extschema@.session_router_map() m LOOP
		answer := NULL;
		state := NULL;
		message := NULL;
		detail := NULL;
		hint := NULL;
		BEGIN
			EXECUTE 'SELECT session_router.' || query INTO answer USING parts[1], arguments;
		EXCEPTION WHEN OTHERS OR query_canceled THEN
			-- who has cancelled this call wants all of it to end
			IF SQLSTATE = '57014' AND SQLERRM !~ '\] REMOTE ' THEN
				RAISE;
			END IF;
			GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
			SELECT u.state, u.message, nullif(u.detail, ''), nullif(u.hint, '') INTO state, message, detail, hint
				FROM session_router.understand(SQLSTATE, SQLERRM, detail, hint) u;
		END;
		RETURN NEXT;
	END LOOP;
	IF NOT FOUND THEN
		PERFORM session_router.fail('XX000', 'Pl/Proxy: cluster not found', '', '');
	END IF;
END
$$;

COMMENT ON FUNCTION session_router.each(text, text[]) IS
'what each shard answers to a call of its function in session_router, in which $1 is a part and $2 are the arguments; or its error';

CREATE FUNCTION session_router.gather(partly boolean, done text, query text, VARIADIC arguments text[] DEFAULT '{}')
RETURNS TABLE (shard text, answer jsonb)
LANGUAGE plpgsql VOLATILE ROWS 4
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	it record;
	asked integer := 0;
	answered integer := 0;
	worst_state text;
	worst_message text;
	worst_detail text;
	worst_hint text;
	missed text[] := '{}';
	was_done text[] := '{}';
BEGIN
	FOR it IN SELECT * FROM session_router.each(query, VARIADIC arguments) LOOP
		asked := asked + 1;
		IF it.state IS NULL THEN
			answered := answered + 1;
			shard := it.shard;
			answer := it.answer;
			RETURN NEXT;
			CONTINUE;
		END IF;
		-- a refusal says more than that a shard does not answer
		IF worst_state IS NULL OR worst_state ~ '^(08|57P)' THEN
			worst_state := it.state;
			worst_message := it.message;
			worst_detail := it.detail;
			worst_hint := it.hint;
		END IF;
		IF it.state = done THEN
			was_done := was_done || it.shard;
		ELSE
			missed := missed || format('%s (parts %s): %s %s', it.shard, array_to_string(it.parts, ', '), it.state,
				concat_ws(': ', it.message, it.detail));
		END IF;
	END LOOP;
	IF missed = '{}' AND answered > 0 THEN
		RETURN;
	ELSIF answered = 0 AND cardinality(was_done) IN (0, asked) THEN
		PERFORM session_router.fail(worst_state, worst_message, worst_detail, worst_hint);
	ELSIF partly THEN
		RAISE WARNING USING ERRCODE = worst_state,
			MESSAGE = format('%s of %s session shards have not taken part', cardinality(missed), asked),
			DETAIL = array_to_string(missed, E'\n'),
			HINT = 'Call the function again when they answer: it does on them what it has done on the others.';
	ELSE
		RAISE EXCEPTION USING ERRCODE = worst_state,
			MESSAGE = format('%s of %s session shards have not done this, and the others have', cardinality(missed), asked),
			DETAIL = array_to_string(missed, E'\n'),
			HINT = 'Call the function again when this can be done on them.';
	END IF;
END
$$;

COMMENT ON FUNCTION session_router.gather(boolean, text, text, text[]) IS
'what the shards answer; an error if none does; if some do not, a WARNING (partly) or an error after all have been asked; an error with the SQLSTATE done counts as done where others have done it now';

--
-- By user
--

CREATE FUNCTION session_router.create(integer, text, jsonb, interval, inet, text, text, jsonb, interval, interval, text)
RETURNS TABLE (
	session_id uuid,
	session_token text,
	created_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	new_device boolean)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT session_id, session_token, created_at, expires_at, absolute_expires_at, new_device FROM
		@extschema@.session_create($2, $3, $4, $5, $6, $7, $8, $9, $10, $11);
$$;

CREATE FUNCTION session_create(
	user_id text,
	data jsonb DEFAULT '{}',
	ttl interval DEFAULT NULL,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL,
	tenant_id text DEFAULT NULL,
	auth jsonb DEFAULT NULL,
	max_lifetime interval DEFAULT NULL,
	idle_timeout interval DEFAULT NULL,
	actor_token text DEFAULT NULL)
RETURNS TABLE (
	session_id uuid,
	session_token text,
	created_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	new_device boolean)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	IF $10 IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
			MESSAGE = 'nobody can act as another user through the router',
			HINT = 'The session of the actor has to be on the same server as that of the user.';
	END IF;
	RETURN QUERY SELECT * FROM session_router.create(session_router.user_part($1), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_create(text, jsonb, interval, inet, text, text, jsonb, interval, interval, text) IS
'log a user in: create a session and return its token exactly once; with the token of another person''s live session as actor_token, that person acts as the user for as long as that session lives';

CREATE FUNCTION session_router.invalidate_all(integer, text, text, text, text)
RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_invalidate_all($2, $3, $4, $5);
$$;

CREATE FUNCTION session_invalidate_all(
	user_id text,
	except_token text DEFAULT NULL,
	tenant_id text DEFAULT NULL,
	reason text DEFAULT 'logout_all')
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.invalidate_all(session_router.user_part($1), $1, session_router.of_user($2, $1), $3, $4);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_invalidate_all(text, text, text, text) IS
'end every live session of a user, optionally only in one tenant and except that of one token; returns how many';

CREATE FUNCTION session_router.update_user(integer, text, jsonb, text)
RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_update_user($2, $3, $4);
$$;

CREATE FUNCTION session_update_user(user_id text, patch jsonb, tenant_id text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.update_user(session_router.user_part($1), $1, $2, $3);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_update_user(text, jsonb, text) IS
'patch the data of every live session of a user (RFC 7396), optionally only in one tenant; returns how many';

CREATE FUNCTION session_router.list(integer, text, text, boolean, uuid, integer)
RETURNS TABLE (
	session_id uuid,
	tenant_id text,
	is_current boolean,
	created_at timestamptz,
	last_seen_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	ip inet,
	user_agent text,
	auth jsonb,
	ended_at timestamptz,
	ended_reason text,
	actor_id text,
	idle_timeout interval,
	device_thumbprint text,
	device_bound_at timestamptz,
	device_proved_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 5
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT session_id, tenant_id, is_current, created_at, last_seen_at, expires_at, absolute_expires_at, ip,
		user_agent, auth, ended_at, ended_reason, actor_id, idle_timeout,
		device_thumbprint, device_bound_at, device_proved_at FROM @extschema@.session_list($2, $3, $4, $5,
		$6);
$$;

CREATE FUNCTION session_list(
	user_id text,
	current_token text DEFAULT NULL,
	include_ended boolean DEFAULT false,
	after uuid DEFAULT NULL,
	max_rows integer DEFAULT 100)
RETURNS TABLE (
	session_id uuid,
	tenant_id text,
	is_current boolean,
	created_at timestamptz,
	last_seen_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	ip inet,
	user_agent text,
	auth jsonb,
	ended_at timestamptz,
	ended_reason text,
	actor_id text,
	idle_timeout interval,
	device_thumbprint text,
	device_bound_at timestamptz,
	device_proved_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 5
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.list(session_router.user_part($1), $1, session_router.of_user($2, $1), $3, $4, $5);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_list(text, text, boolean, uuid, integer) IS
'a user''s sessions, newest first, one page at a time: pass the last session_id as after; never a token, never data';

CREATE FUNCTION session_router.export(integer, text, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_export($2, $3);
$$;

CREATE FUNCTION session_export(user_id text, pgp_public_key text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.export(session_router.user_part($1), $1, $2);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_export(text, text) IS
'everything stored about a user, as JSON, or with an armoured public key as an armoured PGP message';

CREATE FUNCTION session_router.erase(integer, text)
RETURNS bigint
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_erase($2);
$$;

CREATE FUNCTION session_erase(user_id text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.erase(session_router.user_part($1), $1);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_erase(text) IS
'delete a user''s sessions and anonymise the user''s events; returns the number of deleted sessions';

--
-- By token
--

CREATE TYPE live_session AS (
	session_id uuid,
	user_id text,
	tenant_id text,
	data jsonb,
	version integer,
	auth jsonb,
	created_at timestamptz,
	authenticated_at timestamptz,
	last_seen_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	cacheable boolean,
	actor_id text,
	device_proved_at timestamptz);

COMMENT ON TYPE live_session IS
'row type of session_get';

CREATE FUNCTION session_router.get(integer, text, inet, text, boolean)
RETURNS SETOF @extschema@.live_session
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT session_id, user_id, tenant_id, data, version, auth, created_at, authenticated_at, last_seen_at,
		expires_at, absolute_expires_at, cacheable, actor_id, device_proved_at
	FROM @extschema@.session_get($2, $3, $4, $5);
$$;

CREATE FUNCTION session_get(
	token text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL,
	touch boolean DEFAULT true)
RETURNS SETOF live_session
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.get(session_router.token_part($1), $1, $2, $3, $4);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_get(text, inet, text, boolean) IS
'the live session of a token, or no row';

CREATE FUNCTION session_router.get_json(integer, text, inet, text, boolean)
RETURNS json
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_get_json($2, $3, $4, $5);
$$;

CREATE FUNCTION session_get_json(
	token text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL,
	touch boolean DEFAULT true)
RETURNS json
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.get_json(session_router.token_part($1), $1, $2, $3, $4);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_get_json(text, inet, text, boolean) IS
'what session_get returns as one JSON object, or null: the fastest way to read a session; times are microseconds since 1970, and read_at is when the row was read';

CREATE FUNCTION session_router.update(integer, text, jsonb, integer, boolean)
RETURNS TABLE (version integer, data jsonb)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT version, data FROM @extschema@.session_update($2, $3, $4, $5);
$$;

CREATE FUNCTION session_update(
	token text,
	patch jsonb,
	expected_version integer DEFAULT NULL,
	replace boolean DEFAULT false)
RETURNS TABLE (version integer, data jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.update(session_router.token_part($1), $1, $2, $3, $4);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_update(text, jsonb, integer, boolean) IS
'change a live session''s data by JSON Merge Patch (RFC 7396), or replace it; no row if the session is not live';

CREATE FUNCTION session_router.refresh(integer, text, boolean, interval, inet, text)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	expires_at timestamptz,
	absolute_expires_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT status, session_id, user_id, session_token, expires_at, absolute_expires_at FROM
		@extschema@.session_refresh($2, $3, $4, $5, $6);
$$;

CREATE FUNCTION session_refresh(
	token text,
	rotate boolean DEFAULT false,
	ttl interval DEFAULT NULL,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	expires_at timestamptz,
	absolute_expires_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.refresh(session_router.token_part($1), $1, $2, $3, $4, $5);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_refresh(text, boolean, interval, inet, text) IS
'extend a live session and, with rotate, replace its token; status extended, rotated, already_rotated, reused, proof_required or ended';

CREATE FUNCTION session_router.elevate(integer, text, jsonb, jsonb)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	expires_at timestamptz,
	absolute_expires_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT status, session_id, user_id, session_token, expires_at, absolute_expires_at FROM
		@extschema@.session_elevate($2, $3, $4);
$$;

CREATE FUNCTION session_elevate(
	token text,
	auth jsonb,
	data jsonb DEFAULT NULL)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	expires_at timestamptz,
	absolute_expires_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.elevate(session_router.token_part($1), $1, $2, $3);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_elevate(text, jsonb, jsonb) IS
'record that the user authenticated more strongly: replace auth (except members whose names begin with an underscore), optionally data, and always the token, without a grace period for the old one';

CREATE FUNCTION session_router.switch_tenant(integer, text, text, jsonb)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	expires_at timestamptz,
	absolute_expires_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT status, session_id, user_id, session_token, expires_at, absolute_expires_at FROM
		@extschema@.session_switch_tenant($2, $3, $4);
$$;

CREATE FUNCTION session_switch_tenant(
	token text,
	tenant_id text,
	data jsonb DEFAULT NULL)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	expires_at timestamptz,
	absolute_expires_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.switch_tenant(session_router.token_part($1), $1, $2, $3);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_switch_tenant(text, text, jsonb) IS
'replace a live session by a new one in another tenant, with the same auth and absolute end and with only the given data; status rotated, already_rotated, proof_required or ended';

CREATE FUNCTION session_router.invalidate(integer, text, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_invalidate($2, $3);
$$;

CREATE FUNCTION session_invalidate(token text, reason text DEFAULT 'logout')
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.invalidate(session_router.token_part($1), $1, $2);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_invalidate(text, text) IS
'log out: end the session of a token; returns its user, or null if it was not live';

CREATE FUNCTION session_router.device_challenge(integer, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_device_challenge($2);
$$;

CREATE FUNCTION session_device_challenge(token text)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.device_challenge(session_router.token_part($1), $1);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_device_challenge(text) IS
'what the device of a live session has to sign, to be bound or to prove itself; null if the session is not live';

CREATE FUNCTION session_router.bind_device(integer, text, jsonb, text, inet, text)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	binding_id uuid,
	thumbprint text,
	proof text,
	proof_expires_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT status, session_id, user_id, session_token, binding_id, thumbprint, proof, proof_expires_at
	FROM @extschema@.session_bind_device($2, $3, $4, $5, $6);
$$;

CREATE FUNCTION session_bind_device(
	token text,
	key jsonb,
	challenge text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL)
RETURNS TABLE (
	status text,
	session_id uuid,
	user_id text,
	session_token text,
	binding_id uuid,
	thumbprint text,
	proof text,
	proof_expires_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.bind_device(session_router.token_part($1), $1, $2, $3, $4, $5);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_bind_device(text, jsonb, text, inet, text) IS
'bind a live session to the public key (JSON Web Key) of a device that has signed a challenge, which the caller has verified; replaces the token; status bound, already_bound, already_rotated, bad_challenge or ended';

CREATE FUNCTION session_router.prove_device(integer, text, text)
RETURNS TABLE (
	status text,
	proof text,
	proof_expires_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT status, proof, proof_expires_at
	FROM @extschema@.session_prove_device($2, $3);
$$;

CREATE FUNCTION session_prove_device(token text, challenge text)
RETURNS TABLE (
	status text,
	proof text,
	proof_expires_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.prove_device(session_router.token_part($1), $1, $2);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_prove_device(text, text) IS
'a new proof for a session whose device has signed a challenge, which the caller has verified against session_device(); status proved, bad_challenge, not_bound or ended';

CREATE FUNCTION session_router.device(integer, text)
RETURNS TABLE (
	session_id uuid,
	user_id text,
	binding_id uuid,
	key jsonb,
	thumbprint text,
	bound_at timestamptz,
	proved_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT session_id, user_id, binding_id, key, thumbprint, bound_at, proved_at
	FROM @extschema@.session_device($2);
$$;

CREATE FUNCTION session_device(token text)
RETURNS TABLE (
	session_id uuid,
	user_id text,
	binding_id uuid,
	key jsonb,
	thumbprint text,
	bound_at timestamptz,
	proved_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.device(session_router.token_part($1), $1);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_device(text) IS
'the device that a live session is bound to; no row if the session is not live or not bound';

CREATE FUNCTION session_router.device_report(integer, text, boolean, text, inet, text)
RETURNS boolean
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_device_report($2, $3, $4, $5, $6);
$$;

CREATE FUNCTION session_device_report(
	token text,
	skipped boolean,
	cause text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.device_report(session_router.token_part($1), $1, $2, $3, $4, $5);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_device_report(text, boolean, text, inet, text) IS
'record that a bound session''s browser said why it sends no proof (skipped), or that what it sent is none: event device_proof_skipped or device_proof_failed; false if the session is not live or not bound';

CREATE FUNCTION session_router.assertion(integer, text, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_assertion($2, $3);
$$;

CREATE FUNCTION session_assertion(token text, audience text)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.assertion(session_router.token_part($1), $1, $2);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_assertion(text, text) IS
'a signed statement of whose live session this is, good for 30 seconds and one audience: session_bind takes it in the database whose session_audience() that is; null if the session is not live';

CREATE FUNCTION session_router.status(integer, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_status($2);
$$;

CREATE FUNCTION session_status(token text)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.status(session_router.token_part($1), $1);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_status(text) IS
'for administrators: active, proof_required, expired, idle, revoked, actor_ended, unknown or malformed; never show it to a client';

CREATE FUNCTION session_router.end_reason(integer, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_end_reason($2);
$$;

CREATE FUNCTION session_end_reason(token text)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.end_reason(session_router.token_part($1), $1);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_end_reason(text) IS
'why the session of this token has ended: expired, idle, actor_ended, or the reason for its revocation; null if it is live or unknown, or if the secret is wrong';

--
-- By session id
--

CREATE FUNCTION session_router.get_id(integer, uuid, text)
RETURNS TABLE (
	tenant_id text,
	actor_id text,
	created_at timestamptz,
	authenticated_at timestamptz,
	last_seen_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	ends_at timestamptz)
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE ROWS 1
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT tenant_id, actor_id, created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at,
		ends_at FROM @extschema@.session_get_id($2, $3);
$$;

CREATE FUNCTION session_get_id(session_id uuid, user_id text)
RETURNS TABLE (
	tenant_id text,
	actor_id text,
	created_at timestamptz,
	authenticated_at timestamptz,
	last_seen_at timestamptz,
	expires_at timestamptz,
	absolute_expires_at timestamptz,
	ends_at timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN QUERY SELECT * FROM session_router.get_id(session_router.id_part($1), $1, $2);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_get_id(uuid, text) IS
'what is known of a user''s live session by its id, for work beside requests: never a token, never data; ends_at is when it ends unless it is used or refreshed';

CREATE FUNCTION session_router.invalidate_id(integer, uuid, text, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_invalidate_id($2, $3, $4);
$$;

CREATE FUNCTION session_invalidate_id(session_id uuid, user_id text DEFAULT NULL, reason text DEFAULT 'admin')
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.invalidate_id(session_router.id_part($1), $1, $2, $3);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_invalidate_id(uuid, text, text) IS
'end a session by its id, with a user only if it belongs to that user; returns its user, or null if it was not live';

CREATE FUNCTION session_router.assertion_id(integer, uuid, text, text)
RETURNS text
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_assertion_id($2, $3, $4);
$$;

CREATE FUNCTION session_assertion_id(session_id uuid, user_id text, audience text)
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
AS $$
DECLARE
	detail pg_catalog.text;
	hint pg_catalog.text;
BEGIN
	RETURN session_router.assertion_id(session_router.id_part($1), $1, $2, $3);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_assertion_id(uuid, text, text) IS
'like session_assertion, but finds a user''s session by its id; for tasks and other work that has no token';

--
-- Not through a router
--

CREATE FUNCTION session_bind(token text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'an identity cannot be bound through the router',
		HINT = 'Call session_assertion() here, and session_bind() with its result in the database of the application.';
END
$$;

COMMENT ON FUNCTION session_bind(text) IS
'make a live session''s user, tenant, actor and id the identity of this transaction, for row-level security; if the session is not live, return false and leave no identity. In place of a token: an assertion that a trusted database has made for this one';

CREATE FUNCTION session_bind_id(session_id uuid, user_id text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'an identity cannot be bound through the router',
		HINT = 'Call session_assertion_id() here, and session_bind() with its result in the database of the application.';
END
$$;

COMMENT ON FUNCTION session_bind_id(uuid, text) IS
'like session_bind, but finds a user''s session by its id; for tasks and other work that has no token';

CREATE FUNCTION session_user_id()
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'the router has no bound identity',
		HINT = 'Call this in the database of the application, where session_bind() binds an assertion.';
END
$$;

COMMENT ON FUNCTION session_user_id() IS 'user that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_tenant_id()
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'the router has no bound identity',
		HINT = 'Call this in the database of the application, where session_bind() binds an assertion.';
END
$$;

COMMENT ON FUNCTION session_tenant_id() IS 'tenant that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_actor_id()
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'the router has no bound identity',
		HINT = 'Call this in the database of the application, where session_bind() binds an assertion.';
END
$$;

COMMENT ON FUNCTION session_actor_id() IS 'person who acts as the user that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_id()
RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'the router has no bound identity',
		HINT = 'Call this in the database of the application, where session_bind() binds an assertion.';
END
$$;

COMMENT ON FUNCTION session_id() IS 'session that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_audience()
RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'no assertion is bound in the database of a router',
		HINT = 'Call this in the database of the application, where session_bind() binds an assertion.';
END
$$;

COMMENT ON FUNCTION session_audience() IS
'the audience that an assertion must have to be bound in this database; null before the first key';

CREATE FUNCTION session_trust(keys jsonb)
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE STRICT
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'no assertion is bound in the database of a router',
		HINT = 'Call this in the database of the application, with what session_assertion_keys() returns here.';
END
$$;

COMMENT ON FUNCTION session_trust(jsonb) IS
'believe assertions that are signed with these keys, which session_assertion_keys() of another database has returned, and no others of that database; returns how many';

CREATE FUNCTION session_distrust(issuer uuid)
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE STRICT
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'no assertion is bound in the database of a router',
		HINT = 'Call this in the database of the application, with what session_assertion_keys() returns here.';
END
$$;

COMMENT ON FUNCTION session_distrust(uuid) IS
'believe no more assertions of a database; returns how many of its keys were trusted';

CREATE FUNCTION session_key_generate()
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'a key cannot be generated through the router',
		HINT = 'Generate it on one shard, copy the key file to the others, and call session_key_add() here.';
END
$$;

COMMENT ON FUNCTION session_key_generate() IS
'append a random key to session_manager.key_file, record it and return its id; the first key becomes active; superusers only';

CREATE FUNCTION session_hand_over()
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
		MESSAGE = 'the router has no sessions that another server could take over',
		HINT = 'Call this on the shard that gives sessions away, as scripts/shard.sh does.';
END
$$;

COMMENT ON FUNCTION session_hand_over() IS
'wait until nothing is under way any more for sessions outside of session_manager.shard, so that another server may take them over';

--
-- Everywhere
--

CREATE FUNCTION session_router.invalidate_tenant(integer, text, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_invalidate_tenant($2, $3));
$$;

CREATE FUNCTION session_invalidate_tenant(tenant_id text, reason text DEFAULT 'admin')
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sum(answer::bigint)::bigint
	FROM session_router.gather(true, NULL, 'invalidate_tenant($1, $2[1], $2[2])', $1, $2)
$$;

COMMENT ON FUNCTION session_invalidate_tenant(text, text) IS
'end every live session of a tenant; returns how many';

CREATE FUNCTION session_router_invalidate_tenant(tenant_id text, reason text DEFAULT 'admin')
RETURNS TABLE (shard text, parts integer[], sessions bigint, state text, message text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT shard, parts, answer::bigint, state, nullif(concat_ws(': ', message, detail), '')
	FROM session_router.each('invalidate_tenant($1, $2[1], $2[2])', $1, $2)
$$;

COMMENT ON FUNCTION session_router_invalidate_tenant(text, text) IS
'end every live session of a tenant; returns how many on each shard, or why that has not done it';

CREATE FUNCTION session_router.invalidate_everything(integer, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_invalidate_everything($2));
$$;

CREATE FUNCTION session_invalidate_everything(reason text DEFAULT 'admin')
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sum(answer::bigint)::bigint
	FROM session_router.gather(true, NULL, 'invalidate_everything($1, $2[1])', $1)
$$;

COMMENT ON FUNCTION session_invalidate_everything(text) IS
'end every live session of this database; returns how many';

CREATE FUNCTION session_router_invalidate_everything(reason text DEFAULT 'admin')
RETURNS TABLE (shard text, parts integer[], sessions bigint, state text, message text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT shard, parts, answer::bigint, state, nullif(concat_ws(': ', message, detail), '')
	FROM session_router.each('invalidate_everything($1, $2[1])', $1)
$$;

COMMENT ON FUNCTION session_router_invalidate_everything(text) IS
'end every live session; returns how many on each shard, or why that has not done it';

-- The row type of session_history is that of a table on the shards.
CREATE TYPE session_events AS (
	event_id bigint,
	at timestamptz,
	session_id uuid,
	user_id text COLLATE "C",
	tenant_id text COLLATE "C",
	event text,
	ip inet,
	user_agent text,
	detail jsonb);

COMMENT ON TYPE session_events IS
'row type of session_history and session_critical_events; the audit trail is on the shards';

-- The time as ISO 8601: PL/Proxy would write it as the caller's DateStyle is, and
-- the shard read it as its own is.
CREATE FUNCTION session_router.history(integer, uuid, text, text, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT coalesce(jsonb_agg(to_jsonb(h)), '[]') FROM @extschema@.session_history($2, $3, $4::timestamptz, $5) h;
$$;

CREATE FUNCTION session_history(
	session_id uuid DEFAULT NULL,
	user_id text DEFAULT NULL,
	since timestamptz DEFAULT NULL,
	max_rows integer DEFAULT 100)
RETURNS SETOF session_events
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 100
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	from_then_on CONSTANT text := to_jsonb($3) #>> '{}';
	told jsonb[];
	detail text;
	hint text;
BEGIN
	IF $1 IS NULL AND $2 IS NULL THEN
		told := ARRAY(SELECT g.answer
			FROM session_router.gather(true, NULL, 'history($1, NULL, NULL, $2[1], $2[2]::integer)', from_then_on, $4::text) g);
	ELSE
		told[1] := session_router.history(CASE WHEN $1 IS NULL THEN session_router.user_part($2) ELSE session_router.id_part($1) END,
			$1, $2, from_then_on, $4);
	END IF;
	RETURN QUERY SELECT h.*
		FROM unnest(told) AS t (answer), jsonb_populate_recordset(NULL::@extschema@.session_events, t.answer) h
		ORDER BY h.at DESC, h.event_id DESC LIMIT $4;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_history(uuid, text, timestamptz, integer) IS
'events of a session, of a user, or of all, newest first';

CREATE FUNCTION session_router.critical_events(integer, integer, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') FROM @extschema@.session_critical_events($2, $3) e;
$$;

CREATE FUNCTION session_critical_events(
	max_rows integer DEFAULT 20,
	tenant_id text DEFAULT NULL)
RETURNS SETOF session_events
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 20
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT e.*
	FROM session_router.gather(true, NULL, 'critical_events($1, $2[1]::integer, $2[2])', $1::text, $2) g,
		jsonb_populate_recordset(NULL::@extschema@.session_events, g.answer) e
	-- LIMIT 0, or a negative one, would end this before the shards are asked, which refuse it
	ORDER BY e.at DESC, e.event_id DESC LIMIT greatest($1, 1)
$$;

COMMENT ON FUNCTION session_critical_events(integer, text) IS
'the newest critical events of all sessions or of a tenant''s, newest first';

CREATE FUNCTION session_router.activity(integer, text, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT coalesce(jsonb_agg(to_jsonb(a)), '[]') FROM @extschema@.session_activity($2::timestamptz, $3) a;
$$;

CREATE FUNCTION session_activity(
	since timestamptz DEFAULT NULL,
	tenant_id text DEFAULT NULL)
RETURNS TABLE (
	hour timestamptz,
	until timestamptz,
	event text,
	reason text,
	events bigint)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT a.hour, min(a.until), a.event, a.reason, sum(a.events)::bigint
	FROM session_router.gather(true, NULL, 'activity($1, $2[1], $2[2])', to_jsonb($1) #>> '{}', $2) g,
		jsonb_to_recordset(g.answer) AS a (hour timestamptz, until timestamptz, event text, reason text, events bigint)
	GROUP BY a.hour, a.event, a.reason
	ORDER BY a.hour, a.event, a.reason
$$;

COMMENT ON FUNCTION session_activity(timestamptz, text) IS
'numbers of events by the hour, type and reason, of all sessions or of a tenant''s, by default of the last 24 hours';

CREATE FUNCTION session_router.top(integer, integer, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM @extschema@.session_top($2, $3) t;
$$;

CREATE FUNCTION session_top(
	max_rows integer DEFAULT 10,
	tenant_id text DEFAULT NULL)
RETURNS TABLE (
	user_id text,
	sessions bigint,
	last_seen_at timestamptz)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.user_id, t.sessions, t.last_seen_at
	FROM session_router.gather(true, NULL, 'top($1, $2[1]::integer, $2[2])', $1::text, $2) g,
		jsonb_to_recordset(g.answer) AS t (user_id text, sessions bigint, last_seen_at timestamptz)
	-- as above
	ORDER BY t.sessions DESC, t.user_id COLLATE "C" LIMIT greatest($1, 1)
$$;

COMMENT ON FUNCTION session_top(integer, text) IS
'the users with the most sessions, of all or of a tenant''s, with those that have ended and are not deleted yet';

CREATE FUNCTION session_router.active_count(integer, text, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_active_count($2, $3));
$$;

CREATE FUNCTION session_active_count(tenant_id text DEFAULT NULL, user_id text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	IF $2 IS NULL THEN
		RETURN (SELECT sum(answer::bigint)::bigint
			FROM session_router.gather(true, NULL, 'active_count($1, $2[1], NULL)', $1));
	END IF;
	RETURN session_router.active_count(session_router.user_part($2), $1, $2)::bigint;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM session_router.fail(SQLSTATE, SQLERRM, detail, hint);
END
$$;

COMMENT ON FUNCTION session_active_count(text, text) IS
'exact number of live sessions, optionally only of a tenant or a user';

CREATE FUNCTION session_router.active_estimate(integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_active_estimate());
$$;

CREATE FUNCTION session_active_estimate()
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sum(answer::bigint)::bigint
	FROM session_router.gather(true, NULL, 'active_estimate($1)')
$$;

COMMENT ON FUNCTION session_active_estimate() IS
'number of live sessions, estimated from at most 1,000 pages of the table';

CREATE FUNCTION session_router.cleanup(integer, integer, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(c) FROM @extschema@.session_cleanup($2, $3) c;
$$;

CREATE FUNCTION session_cleanup(
	batch integer DEFAULT NULL,
	max_batches integer DEFAULT NULL)
RETURNS TABLE (
	sessions_deleted bigint,
	sessions_requeued bigint,
	events_dropped bigint,
	partitions_created integer,
	partitions_dropped integer,
	events_moved bigint)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sum(c.sessions_deleted)::bigint, sum(c.sessions_requeued)::bigint, sum(c.events_dropped)::bigint,
		sum(c.partitions_created)::integer, sum(c.partitions_dropped)::integer, sum(c.events_moved)::bigint
	FROM session_router.gather(true, NULL, 'cleanup($1, $2[1]::integer, $2[2]::integer)', $1::text, $2::text) g,
		jsonb_to_record(g.answer) AS c (sessions_deleted bigint, sessions_requeued bigint, events_dropped bigint,
			partitions_created integer, partitions_dropped integer, events_moved bigint)
$$;

COMMENT ON FUNCTION session_cleanup(integer, integer) IS
'a step of maintenance: delete ended sessions, create event partitions ahead, drop those past retention, move up to 10,000 events out of the default partition; what cannot be done is skipped with a WARNING';

--
-- Keys.  The shards are one installation with the same key file.
--

CREATE FUNCTION session_router.key_add(integer, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_key_add($2)::text);
$$;

-- A second call has to go where the first one did not come to.
CREATE FUNCTION session_key_add(key_id integer)
RETURNS void
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FROM session_router.gather(false, '42710', 'key_add($1, $2[1]::integer)', $1::text)
$$;

COMMENT ON FUNCTION session_key_add(integer) IS
'record a key of the key file, with its check value; the first key becomes active';

CREATE FUNCTION session_router.key_activate(integer, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_key_activate($2)::text);
$$;

CREATE FUNCTION session_key_activate(key_id integer)
RETURNS void
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FROM session_router.gather(false, NULL, 'key_activate($1, $2[1]::integer)', $1::text)
$$;

COMMENT ON FUNCTION session_key_activate(integer) IS
'seal everything that is written from now on with this key';

CREATE FUNCTION session_router.key_retire(integer, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_key_retire($2)::text);
$$;

CREATE FUNCTION session_key_retire(key_id integer)
RETURNS void
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FROM session_router.gather(false, NULL, 'key_retire($1, $2[1]::integer)', $1::text)
$$;

COMMENT ON FUNCTION session_key_retire(integer) IS
'retire a key; refused while a session uses it';

CREATE FUNCTION session_router.key_revoke(integer, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_key_revoke($2)::text);
$$;

CREATE FUNCTION session_key_revoke(key_id integer)
RETURNS void
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FROM session_router.gather(true, NULL, 'key_revoke($1, $2[1]::integer)', $1::text)
$$;

COMMENT ON FUNCTION session_key_revoke(integer) IS
'emergency stop: end every session under the key from the commit on';

CREATE FUNCTION session_router_key_revoke(key_id integer)
RETURNS TABLE (shard text, parts integer[], revoked boolean, state text, message text)
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT shard, parts, state IS NULL, state, nullif(concat_ws(': ', message, detail), '')
	FROM session_router.each('key_revoke($1, $2[1]::integer)', $1::text)
$$;

COMMENT ON FUNCTION session_router_key_revoke(integer) IS
'emergency stop: end every session under the key; returns whether each shard has done it, or why not';

CREATE FUNCTION session_router.keys(integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT coalesce(jsonb_agg(to_jsonb(k)), '[]') FROM @extschema@.session_keys() k;
$$;

-- Where the shards do not agree: all states that the key has, and "none" where a
-- shard does not know it.
CREATE FUNCTION session_keys()
RETURNS TABLE (
	key_id integer,
	state text,
	available boolean,
	created_at timestamptz,
	activated_at timestamptz,
	retired_at timestamptz,
	revoked_at timestamptz)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 3
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH told AS MATERIALIZED (SELECT g.shard, g.answer FROM session_router.gather(true, NULL, 'keys($1)') g)
	SELECT k.key_id,
		concat_ws('/', string_agg(DISTINCT k.state, '/'), CASE WHEN count(*) < (SELECT count(*) FROM told) THEN 'none' END),
		bool_and(k.available) AND count(*) = (SELECT count(*) FROM told),
		min(k.created_at), max(k.activated_at), max(k.retired_at), max(k.revoked_at)
	FROM told, jsonb_to_recordset(told.answer) AS k (key_id integer, state text, available boolean, created_at timestamptz,
		activated_at timestamptz, retired_at timestamptz, revoked_at timestamptz)
	GROUP BY k.key_id ORDER BY k.key_id
$$;

COMMENT ON FUNCTION session_keys() IS
'the keys, and whether this server holds the right material for each; never the material';

CREATE FUNCTION session_router.reencrypt(integer, integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_reencrypt($2));
$$;

CREATE FUNCTION session_reencrypt(batch integer DEFAULT 500)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sum(answer::bigint)::bigint
	FROM session_router.gather(true, NULL, 'reencrypt($1, $2[1]::integer)', $1::text)
$$;

COMMENT ON FUNCTION session_reencrypt(integer) IS
're-seal up to batch sessions under the active key; call until it returns 0';

CREATE FUNCTION session_router.assertion_keys(integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT @extschema@.session_assertion_keys();
$$;

CREATE FUNCTION session_assertion_keys()
RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	told CONSTANT jsonb[] := ARRAY(SELECT DISTINCT answer FROM session_router.gather(true, NULL, 'assertion_keys($1)'));
BEGIN
	IF cardinality(told) > 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'the session shards do not have the same keys',
			HINT = 'session_router_status() shows the installation of each, and session_keys() where keys differ.';
	END IF;
	RETURN told[1];
END
$$;

COMMENT ON FUNCTION session_assertion_keys() IS
'public keys that assertions of this database are signed with, as a JSON Web Key Set, for session_trust in another one';

--
-- Monitoring
--

CREATE FUNCTION session_router.info(integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT jsonb_agg(to_jsonb(i)) FROM @extschema@.session_info() i;
$$;

CREATE FUNCTION session_info()
RETURNS TABLE (key text, value text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH told AS MATERIALIZED (SELECT g.shard, g.answer FROM session_router.gather(true, NULL, 'info($1)') g)
	SELECT i.info ->> 'key',
		CASE WHEN count(DISTINCT i.info ->> 'value') = 1 THEN min(i.info ->> 'value')
			ELSE string_agg(format('%s: %s', told.shard, i.info ->> 'value'), '; ' ORDER BY told.shard) END
	FROM told, jsonb_array_elements(told.answer) WITH ORDINALITY i (info, place)
	GROUP BY i.info ->> 'key' ORDER BY min(i.place)
$$;

COMMENT ON FUNCTION session_info() IS
'version, what is enabled and why anything is not, key state, next sweep';

CREATE FUNCTION session_router.audit(integer, text) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT jsonb_agg(to_jsonb(a)) FROM @extschema@.session_audit($2) a;
$$;

CREATE FUNCTION session_audit(profile text DEFAULT 'asvs2')
RETURNS TABLE (reference text, requirement text, met text, setting text, value text, hint text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 30
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH told AS MATERIALIZED (SELECT g.shard, g.answer FROM session_router.gather(true, NULL, 'audit($1, $2[1])', $1) g)
	SELECT a.row ->> 'reference', a.row ->> 'requirement',
		-- alphabetically: application, no, yes
		CASE WHEN bool_or(a.row ->> 'met' = 'no') THEN 'no' ELSE min(a.row ->> 'met') END,
		min(a.row ->> 'setting'),
		CASE WHEN count(DISTINCT a.row ->> 'value') < 2 THEN min(a.row ->> 'value')
			ELSE string_agg(format('%s: %s', told.shard, a.row ->> 'value'), '; ' ORDER BY told.shard) END,
		min(a.row ->> 'hint')
	FROM told, jsonb_array_elements(told.answer) WITH ORDINALITY a (row, place)
	GROUP BY a.row ->> 'reference', a.row ->> 'requirement' ORDER BY min(a.place)
$$;

COMMENT ON FUNCTION session_audit(text) IS
'which requirements of NIST SP 800-63B-4 (aal1, aal2, aal3) or of OWASP ASVS 5.0.0 (asvs1, asvs2, asvs3) the settings meet: yes, no, or as the application decides';

CREATE FUNCTION session_router_status()
RETURNS TABLE (shard text, parts integer[], version text, holds text, installation uuid, problem text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 4
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	told record;
	keys jsonb;
	share int4multirange;
BEGIN
	FOR told IN SELECT e.*, m.buckets FROM session_router.each('info($1)') e JOIN @extschema@.session_router_map() m ON m.shard = e.shard LOOP
		shard := told.shard;
		parts := told.parts;
		SELECT min(i.value) FILTER (WHERE i.key = 'version'), min(i.value) FILTER (WHERE i.key = 'shard') INTO version, holds
			FROM jsonb_to_recordset(told.answer) AS i (key text, value text);
		installation := NULL;
		problem := nullif(concat_ws(': ', told.message, told.detail), '');
		IF told.state IS NULL THEN
			BEGIN
				installation := (session_router.assertion_keys(parts[1]) ->> 'issuer')::uuid;
			EXCEPTION WHEN OTHERS THEN
				problem := (session_router.understand(SQLSTATE, SQLERRM, '', '')).message;
			END;
			-- "part/parts", or the first and the last bucket
			share := (SELECT range_agg(r) FROM (
				SELECT int4range((65536 * (s[1]::integer - 1) + s[2]::integer - 1) / s[2]::integer,
					(65536 * s[1]::integer + s[2]::integer - 1) / s[2]::integer)
				FROM regexp_matches(holds, '(\d+)/(\d+)', 'g') s
				UNION ALL SELECT int4range(s[1]::integer, s[2]::integer, '[]')
				FROM regexp_matches(holds, '(\d+)-(\d+)', 'g') s) AS t (r));
			IF holds <> '' AND (share IS NULL OR NOT share @> told.buckets) THEN
				problem := format('session_manager.shard = %L does not hold all of these parts', holds);
			END IF;
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;

COMMENT ON FUNCTION session_router_status() IS
'whether each shard answers, its version, its setting session_manager.shard, and its installation, which all should have in common; and what is wrong, or null';

-- The epoch of a cache is that of one shard, and here is room for one.
CREATE FUNCTION session_cache_settings()
RETURNS TABLE (mode text, installation uuid, max_age interval)
LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'off', NULL::uuid, interval '0'
$$;

COMMENT ON FUNCTION session_cache_settings() IS
'what readers of the cache in Redis need to know: whether it is enabled, the name of its epoch key, how old its values may be';

CREATE FUNCTION session_router.counters(integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT coalesce((SELECT to_jsonb(c) FROM @extschema@.session_counters() c
		WHERE c.database_id = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())), 'null');
$$;

-- One row: sums; of times, the one that an alert would be about.  The errors
-- are those of the shard on which a step has failed last.
CREATE FUNCTION session_counters()
RETURNS TABLE (
	database_id oid,
	gets_hit bigint,
	gets_unknown bigint,
	gets_expired bigint,
	gets_idle bigint,
	gets_revoked bigint,
	gets_malformed bigint,
	gets_rejected bigint,
	gets_unproved bigint,
	gets_corrupt bigint,
	sessions_created bigint,
	logins_denied bigint,
	logins_failed bigint,
	refreshes bigint,
	rotations bigint,
	elevations bigint,
	replays bigint,
	updates bigint,
	invalidated_logout bigint,
	invalidated_logout_all bigint,
	invalidated_admin bigint,
	invalidated_other bigint,
	evictions bigint,
	new_devices bigint,
	token_guessing bigint,
	devices_bound bigint,
	device_proofs bigint,
	device_proofs_skipped bigint,
	device_proofs_failed bigint,
	sweeps bigint,
	sessions_swept bigint,
	sessions_requeued bigint,
	touches_buffered bigint,
	touches_flushed bigint,
	touches_direct bigint,
	touches_fallback bigint,
	touches_dropped bigint,
	findings_queued bigint,
	findings_overflowed bigint,
	sessions_resealed bigint,
	cache_tombstones bigint,
	cache_acknowledged bigint,
	cache_waits bigint,
	cache_dead_epoch_commits bigint,
	cache_epochs bigint,
	cache_failures bigint,
	cache_evicted bigint,
	findings_failed bigint,
	touches_failed bigint,
	sweep_failed bigint,
	partitions_failed bigint,
	resealing_failed bigint,
	touches_pending bigint,
	last_pass_at timestamptz,
	last_pass_age interval,
	next_pass_at timestamptz,
	stats_reset timestamptz,
	findings_failed_at timestamptz,
	findings_error text,
	touches_failed_at timestamptz,
	touches_error text,
	sweep_failed_at timestamptz,
	sweep_error text,
	partitions_failed_at timestamptz,
	partitions_error text,
	resealing_failed_at timestamptz,
	resealing_error text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	told jsonb[] := ARRAY(SELECT g.answer FROM session_router.gather(true, NULL, 'counters($1)') g WHERE g.answer <> 'null');
	it jsonb;
BEGIN
	IF told = '{}' THEN
		RETURN;
	END IF;
	SELECT jsonb_object_agg(v.name, coalesce(v.earliest, v.latest, v.longest, v.error, v.total, 'null')) INTO it FROM (
		SELECT e.name,
			to_jsonb(min(e.value::timestamptz) FILTER (WHERE e.name IN ('last_pass_at', 'next_pass_at'))) AS earliest,
			to_jsonb(max(e.value::timestamptz) FILTER (WHERE e.name ~ '_failed_at$' OR e.name = 'stats_reset')) AS latest,
			to_jsonb(max(e.value::interval) FILTER (WHERE e.name = 'last_pass_age')) AS longest,
			to_jsonb((array_agg(e.value ORDER BY e.failed_at DESC) FILTER (WHERE e.name ~ '_error$' AND e.value IS NOT NULL))[1]) AS error,
			to_jsonb(sum(e.value::numeric) FILTER (WHERE e.name !~ '(_at|_age|_error|stats_reset)$')) AS total
		FROM (SELECT c.key AS name, c.value, (t.row ->> regexp_replace(c.key, 'error$', 'failed_at')) AS failed_at
			FROM unnest(told) AS t (row), jsonb_each_text(t.row) c WHERE c.key <> 'database_id') e
		GROUP BY e.name) v;
	it := it || jsonb_build_object('database_id', (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()));
	RETURN QUERY SELECT * FROM jsonb_populate_record(NULL::session_router.counted, it);
END
$$;

COMMENT ON FUNCTION session_counters() IS
'the counters of session_stats, by the OID of the database';

-- For its row type
CREATE VIEW session_router.counted AS SELECT * FROM @extschema@.session_counters();

CREATE VIEW session_stats AS
	SELECT d.datname AS database_name, c.*
	FROM session_counters() c
	JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) c.database_id;

COMMENT ON VIEW session_stats IS
'cumulative counters of all shards together, since stats_reset; no rows unless the library is preloaded there';

REVOKE ALL ON TABLE session_stats FROM PUBLIC;

CREATE FUNCTION session_router.stats_reset(integer) RETURNS jsonb
LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'session_shards';
	RUN ON $1;
	SELECT to_jsonb(@extschema@.session_stats_reset()::text);
$$;

CREATE FUNCTION session_stats_reset()
RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FROM session_router.gather(false, NULL, 'stats_reset($1)')
$$;

COMMENT ON FUNCTION session_stats_reset() IS
'set the counters of this database to zero';

--
-- Privileges.  The bundles are those of session_manager, except "reader": the
-- tables are on the shards.
--

CREATE FUNCTION session_router_grant(role regrole, bundle text)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_grant'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_router_grant(regrole, text) IS
'for session_grant';

CREATE FUNCTION session_grant(role regrole, bundle text)
RETURNS void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF bundle = 'reader' THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
			MESSAGE = 'the router has no table that the bundle "reader" could read',
			HINT = 'Grant it on the shards; session_list() and session_history() work here.';
	END IF;
	PERFORM @extschema@.session_router_grant(role, bundle);
END
$$;

COMMENT ON FUNCTION session_grant(regrole, text) IS
'grant a bundle to a role: the functions of app, admin or monitor, or the columns of reader';

CREATE FUNCTION session_router_revoke(role regrole, bundle text)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_revoke'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_router_revoke(regrole, text) IS
'for session_revoke';

CREATE FUNCTION session_revoke(role regrole, bundle text)
RETURNS void
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- nobody has it here
	IF bundle <> 'reader' THEN
		PERFORM @extschema@.session_router_revoke(role, bundle);
	END IF;
END
$$;

COMMENT ON FUNCTION session_revoke(regrole, text) IS
'revoke a bundle from a role';

-- By default PUBLIC may execute new functions, and ALTER DEFAULT PRIVILEGES may
-- have granted privileges on the new objects, for example to the application's
-- role.  Revoke all of them: only session_grant may grant privileges.
DO $$
DECLARE
	made record;
BEGIN
	-- the schema's own operators and functions are not to be trusted with this
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
	FOR made IN
		SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, a.grantee
		FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'session_manager_router'
		JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'v'
		CROSS JOIN LATERAL aclexplode(c.relacl) a
		WHERE d.classid = 'pg_class'::regclass
			AND d.refclassid = 'pg_extension'::regclass
			AND a.grantee <> c.relowner
		UNION
		SELECT 'FUNCTION', p.oid::regprocedure::text, a.grantee
		FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'session_manager_router'
		JOIN pg_proc p ON p.oid = d.objid
		CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE d.classid = 'pg_proc'::regclass
			AND d.refclassid = 'pg_extension'::regclass
			AND a.grantee <> p.proowner
		UNION
		SELECT 'SCHEMA', n.oid::regnamespace::text, a.grantee
		FROM pg_namespace n
		CROSS JOIN LATERAL aclexplode(n.nspacl) a
		WHERE n.nspname = 'session_router'
			AND a.grantee <> n.nspowner
	LOOP
		EXECUTE format('REVOKE ALL ON %s %s FROM %s', made.kind, made.name,
			CASE made.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(made.grantee)) END);
	END LOOP;
END
$$;
