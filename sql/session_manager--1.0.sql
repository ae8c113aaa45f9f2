/* session_manager--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION session_manager CASCADE" to load this file. \quit

--
-- Tables.  Only the extension's owner may access them: applications use the
-- functions, which session_grant() grants in bundles.  The library reads the
-- headers of rows, so the tables are heaps whatever
-- default_table_access_method says; partitions of session_events need not be.
--

CREATE TABLE session_installation (
	singleton boolean NOT NULL DEFAULT true,
	installation_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	CONSTRAINT session_installation_pkey PRIMARY KEY (singleton),
	CONSTRAINT session_installation_singleton CHECK (singleton)
) USING heap;

COMMENT ON TABLE session_installation IS
'one row, written with the first key: the random id that separates this database''s subkeys from those of every other database under the same key file';
COMMENT ON COLUMN session_installation.singleton IS 'always true: the table has at most one row';
COMMENT ON COLUMN session_installation.installation_id IS 'random id from which every subkey is derived; not a secret, but no session opens without it';
COMMENT ON COLUMN session_installation.created_at IS 'when the first key was added';

CREATE TABLE session_keys (
	key_id integer NOT NULL,
	state text NOT NULL,
	check_value bytea,
	created_at timestamptz NOT NULL,
	activated_at timestamptz,
	retired_at timestamptz,
	revoked_at timestamptz,
	resealed_at timestamptz,
	CONSTRAINT session_keys_pkey PRIMARY KEY (key_id),
	CONSTRAINT session_keys_id_positive CHECK (key_id > 0),
	CONSTRAINT session_keys_state CHECK (state IN ('added', 'active', 'inactive', 'retired', 'revoked')),
	CONSTRAINT session_keys_check_value CHECK (octet_length(check_value) = 32),
	CONSTRAINT session_keys_revoked CHECK ((check_value IS NULL) = (state = 'revoked'))
) USING heap;

CREATE UNIQUE INDEX session_keys_one_active ON session_keys (state) WHERE state = 'active';

COMMENT ON TABLE session_keys IS
'state and check value of each key of the key file; key material is never stored in the database';
COMMENT ON COLUMN session_keys.key_id IS 'the id before the colon in the key file';
COMMENT ON COLUMN session_keys.state IS
'added (known, not used yet), active (seals new data), inactive (was active; still opens), retired (no session uses it), revoked (every session under it has ended)';
COMMENT ON COLUMN session_keys.check_value IS 'derived one-way from the key: detects a wrong key under a right id; null once the key is revoked, so that no change of its state makes it usable again';
COMMENT ON COLUMN session_keys.created_at IS 'when session_key_add or session_key_generate recorded the key';
COMMENT ON COLUMN session_keys.activated_at IS 'when the key last became the active one';
COMMENT ON COLUMN session_keys.retired_at IS 'when session_key_retire found that no session uses the key';
COMMENT ON COLUMN session_keys.revoked_at IS 'when session_key_revoke ended every session under the key';
COMMENT ON COLUMN session_keys.resealed_at IS 'when a worker found every session sealed under the key, after the key last became active';
COMMENT ON INDEX session_keys_one_active IS 'at most one key is active';

CREATE TABLE session_issuers (
	public_key bytea NOT NULL,
	issuer uuid NOT NULL,
	added_at timestamptz NOT NULL,
	key_id integer NOT NULL,
	mac bytea NOT NULL,
	CONSTRAINT session_issuers_pkey PRIMARY KEY (public_key),
	CONSTRAINT session_issuers_public_key CHECK (octet_length(public_key) = 32),
	CONSTRAINT session_issuers_mac CHECK (octet_length(mac) = 32)
) USING heap;

COMMENT ON TABLE session_issuers IS
'whose assertions session_bind believes in this database; session_trust and session_distrust change it';
COMMENT ON COLUMN session_issuers.public_key IS 'Ed25519 key that the issuer''s assertions are signed with';
COMMENT ON COLUMN session_issuers.issuer IS 'installation_id of the issuer';
COMMENT ON COLUMN session_issuers.added_at IS 'when session_trust last recorded the key';
COMMENT ON COLUMN session_issuers.key_id IS 'session key of this database whose subkey computed mac';
COMMENT ON COLUMN session_issuers.mac IS 'keyed BLAKE2b of issuer and public_key: a row that session_trust has not written is not believed';

-- Fixed-width columns first: session_get deforms this row on every request.
-- Then what use, refresh, rotation and revocation change, side by side, and
-- behind it what is long and stays: the WAL of an update leaves out what the
-- two versions of a row have in common at the beginning and at the end.
-- fillfactor leaves room for the new version of a row on its own page, so
-- that every frequent write is a HOT update; no index may ever name a column
-- that touch, refresh, update or invalidate changes.
CREATE TABLE user_sessions (
	session_id uuid NOT NULL,
	created_at timestamptz NOT NULL,
	authenticated_at timestamptz NOT NULL,
	absolute_expires_at timestamptz NOT NULL,
	sweep_at timestamptz NOT NULL,
	ttl interval NOT NULL,
	last_seen_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	version integer NOT NULL,
	key_id integer NOT NULL,
	verifier_key_id integer NOT NULL,
	state_mac bytea,
	revoked_at timestamptz,
	revoked_reason text,
	rotated_at timestamptz,
	successor_used_at timestamptz,
	previous_valid_until timestamptz,
	previous_key_id integer,
	device_proved_at timestamptz,
	previous_verifier bytea,
	verifier bytea NOT NULL,
	sealed_data bytea NOT NULL,
	user_id text COLLATE "C" NOT NULL,
	tenant_id text COLLATE "C",
	idle_timeout interval,
	actor_session_id uuid,
	actor_id text COLLATE "C",
	device_binding_id uuid,
	device_bound_at timestamptz,
	ip inet,
	user_agent text,
	CONSTRAINT user_sessions_pkey PRIMARY KEY (session_id)
) USING heap WITH (fillfactor = 80);

-- Ciphertext does not compress; trying would cost time on every write.
ALTER TABLE user_sessions ALTER COLUMN sealed_data SET STORAGE EXTERNAL;

CREATE INDEX user_sessions_user_id_idx ON user_sessions (user_id);
CREATE INDEX user_sessions_sweep_at_idx ON user_sessions (sweep_at);
-- A row's tenant never changes, and a session without one costs the index nothing.
CREATE INDEX user_sessions_tenant_id_idx ON user_sessions (tenant_id) WHERE tenant_id IS NOT NULL;

COMMENT ON TABLE user_sessions IS
'one row per session; only the functions of the extension write to it';
COMMENT ON COLUMN user_sessions.session_id IS 'UUID version 7 whose last 16 bits are session_bucket(user_id)';
COMMENT ON COLUMN user_sessions.created_at IS 'when the user logged in';
COMMENT ON COLUMN user_sessions.authenticated_at IS 'when the user last authenticated: login or session_elevate';
COMMENT ON COLUMN user_sessions.absolute_expires_at IS 'when the session expires even if it is refreshed; covered by the verifier and the seal';
COMMENT ON COLUMN user_sessions.sweep_at IS 'when the sweep examines the row again; changed only by the sweep';
COMMENT ON COLUMN user_sessions.ttl IS 'time by which session_refresh extends the session unless it is given another';
COMMENT ON COLUMN user_sessions.last_seen_at IS 'last use, accurate to session_manager.touch_interval';
COMMENT ON COLUMN user_sessions.expires_at IS 'when the session expires unless it is refreshed';
COMMENT ON COLUMN user_sessions.version IS 'number of the data''s version, from 1';
COMMENT ON COLUMN user_sessions.key_id IS 'key that seals sealed_data';
COMMENT ON COLUMN user_sessions.verifier_key_id IS 'key of the verifier';
COMMENT ON COLUMN user_sessions.state_mac IS 'keyed SipHash-2-4-128 of every column except last_seen_at, sweep_at, user_agent, revoked_at, revoked_reason and sealed_data (the version and the key bind sealed_data): no token works in a row that does not match it; null once the session is revoked';
COMMENT ON COLUMN user_sessions.revoked_at IS 'when the session was revoked, or null';
COMMENT ON COLUMN user_sessions.revoked_reason IS 'why the session was revoked';
COMMENT ON COLUMN user_sessions.rotated_at IS 'when the token was last replaced, or null';
COMMENT ON COLUMN user_sessions.successor_used_at IS 'first use of the token that the last rotation returned, or null';
COMMENT ON COLUMN user_sessions.previous_valid_until IS 'end of the previous token''s grace period, after which that token works only until its successor has been used; -infinity after session_elevate, because then it does not work at all';
COMMENT ON COLUMN user_sessions.previous_key_id IS 'key of previous_verifier';
COMMENT ON COLUMN user_sessions.device_proved_at IS 'when the challenge that the device answered last was issued, or null; an earlier one cannot be answered any more';
COMMENT ON COLUMN user_sessions.previous_verifier IS 'verifier of the token before the last rotation: distinguishes a replay from a guess';
COMMENT ON COLUMN user_sessions.verifier IS 'keyed BLAKE2b-256 of session, user, tenant, absolute expiry and token digest; no token can be computed from it';
COMMENT ON COLUMN user_sessions.sealed_data IS 'session data, auth and the device''s public key, encrypted with XChaCha20-Poly1305-IETF; opens only in this row under its key';
COMMENT ON COLUMN user_sessions.user_id IS 'the application''s id of the user, such as an OIDC subject';
COMMENT ON COLUMN user_sessions.tenant_id IS 'the application''s id of the tenant, or null';
COMMENT ON COLUMN user_sessions.idle_timeout IS 'time without use after which the session ends, or null; a shorter session_manager.idle_timeout comes first';
COMMENT ON COLUMN user_sessions.actor_session_id IS 'session of the person who acts as the user, or null; this session ends with that one';
COMMENT ON COLUMN user_sessions.actor_id IS 'the application''s id of the person who acts as the user, or null';
COMMENT ON COLUMN user_sessions.device_binding_id IS 'random id of the binding to a device, which every proof covers, or null';
COMMENT ON COLUMN user_sessions.device_bound_at IS 'when the session was bound to a device, or null';
COMMENT ON COLUMN user_sessions.ip IS 'last recorded client address, as the application reported it';
COMMENT ON COLUMN user_sessions.user_agent IS 'last recorded user agent, cut to 512 bytes';
COMMENT ON INDEX user_sessions_user_id_idx IS 'finds a user''s sessions: lists, limits, sign-out everywhere';
COMMENT ON INDEX user_sessions_sweep_at_idx IS 'finds the sessions that the sweep must examine; one entry per session and lifetime';
COMMENT ON INDEX user_sessions_tenant_id_idx IS 'finds a tenant''s sessions: to count or to end them';

-- The parent has no index: an index that is inherited from a table of an
-- extension makes pg_restore fail.  Each partition gets its own indexes when it
-- is created.
CREATE SEQUENCE session_events_event_id_seq CACHE 32;

CREATE TABLE session_events (
	event_id bigint NOT NULL DEFAULT pg_catalog.nextval('session_events_event_id_seq'),
	at timestamptz NOT NULL,
	session_id uuid,
	user_id text COLLATE "C",
	tenant_id text COLLATE "C",
	event text NOT NULL,
	ip inet,
	user_agent text,
	detail jsonb
) PARTITION BY RANGE (at);

ALTER SEQUENCE session_events_event_id_seq OWNED BY session_events.event_id;

CREATE TABLE session_events_default PARTITION OF session_events DEFAULT;
ALTER TABLE session_events_default ADD CONSTRAINT session_events_default_pkey PRIMARY KEY (at, event_id);
CREATE INDEX session_events_default_user_id_at_idx ON session_events_default (user_id, at);
CREATE INDEX session_events_default_session_id_at_idx ON session_events_default (session_id, at);

COMMENT ON SEQUENCE session_events_event_id_seq IS 'numbers the events; gaps are normal';
COMMENT ON TABLE session_events IS
'the audit trail, partitioned by time; session_cleanup creates partitions ahead and drops those older than session_manager.event_retention';
COMMENT ON COLUMN session_events.event_id IS 'unique number; later events usually have higher numbers';
COMMENT ON COLUMN session_events.at IS 'wall-clock time of the event';
COMMENT ON COLUMN session_events.session_id IS 'the session, or null for an event of no single session';
COMMENT ON COLUMN session_events.user_id IS 'the user, or null where unknown or erased';
COMMENT ON COLUMN session_events.tenant_id IS 'the session''s tenant, or null';
COMMENT ON COLUMN session_events.event IS 'what happened; session_event_severity() rates it';
COMMENT ON COLUMN session_events.ip IS 'client address, as the application reported it';
COMMENT ON COLUMN session_events.user_agent IS 'user agent, cut to 512 bytes';
COMMENT ON COLUMN session_events.detail IS 'details, depending on the type of event; never a token, never session data';
COMMENT ON TABLE session_events_default IS 'receives events for which no partition exists; session_cleanup empties it';
COMMENT ON INDEX session_events_default_pkey IS 'all events by time, in the order of session_history';
COMMENT ON INDEX session_events_default_user_id_at_idx IS 'a user''s events by time';
COMMENT ON INDEX session_events_default_session_id_at_idx IS 'a session''s events by time';

-- Numbers of the events in session_events, from which maintenance makes them.
-- Not dumped: they are made again.
CREATE TABLE session_activity (
	tenant_id text COLLATE "C" NOT NULL,
	hour timestamptz NOT NULL,
	event text COLLATE "C" NOT NULL,
	reason text COLLATE "C" NOT NULL,
	events bigint NOT NULL,
	until timestamptz NOT NULL,
	CONSTRAINT session_activity_pkey PRIMARY KEY (tenant_id, hour, event, reason)
) USING heap WITH (fillfactor = 80);

CREATE INDEX session_activity_hour_idx ON session_activity (hour);

COMMENT ON TABLE session_activity IS
'numbers of events by the hour, tenant and type, without the newest; session_activity() adds those';
COMMENT ON COLUMN session_activity.tenant_id IS 'the sessions'' tenant; empty in rows that count the events of all sessions';
COMMENT ON COLUMN session_activity.hour IS 'when the hour began, in UTC';
COMMENT ON COLUMN session_activity.event IS 'what happened';
COMMENT ON COLUMN session_activity.reason IS 'reason or cause of the event''s detail; empty if it has neither';
COMMENT ON COLUMN session_activity.events IS 'number of events, and of those that they say were suppressed';
COMMENT ON COLUMN session_activity.until IS 'events before this time are counted';
COMMENT ON INDEX session_activity_hour_idx IS 'finds what is past session_manager.event_retention';

-- A transaction leaves rows here for the worker that is connected to Redis, which
-- deletes them when the cache no longer holds what they name.  Not dumped: a
-- restored copy has another cache.  No index: the worker reads the whole table,
-- which is short.
CREATE TABLE session_outbox (
	session_id uuid,
	at timestamptz NOT NULL
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 1000000);

COMMENT ON TABLE session_outbox IS
'changes of sessions that have not reached the cache in Redis yet; usually empty';
COMMENT ON COLUMN session_outbox.session_id IS 'the session, or null for all of them';
COMMENT ON COLUMN session_outbox.at IS 'when the transaction was about to commit';

-- Everything else is dumped and restored: without the installation row and the
-- check values no restored session would open.
SELECT pg_catalog.pg_extension_config_dump('session_installation', '');
SELECT pg_catalog.pg_extension_config_dump('session_keys', '');
SELECT pg_catalog.pg_extension_config_dump('session_issuers', '');
SELECT pg_catalog.pg_extension_config_dump('user_sessions', '');
SELECT pg_catalog.pg_extension_config_dump('session_events', '');
SELECT pg_catalog.pg_extension_config_dump('session_events_default', '');
SELECT pg_catalog.pg_extension_config_dump('session_events_event_id_seq', '');

REVOKE ALL ON TABLE session_installation, session_keys, session_issuers, user_sessions, session_events, session_events_default, session_activity, session_outbox FROM PUBLIC;
REVOKE ALL ON SEQUENCE session_events_event_id_seq FROM PUBLIC;

--
-- Lifecycle.  These functions access the tables directly, not through SQL: they
-- need no privilege on a table and do not use search_path.
--

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
AS 'MODULE_PATHNAME', 'sm_session_create'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_create(text, jsonb, interval, inet, text, text, jsonb, interval, interval, text) IS
'log a user in: create a session and return its token exactly once; with the token of another person''s live session as actor_token, that person acts as the user for as long as that session lives';

-- A named type, because the executor rebuilds the descriptor of a RETURNS TABLE
-- for every call, and session_get is called for every request.
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

CREATE FUNCTION session_get(
	token text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL,
	touch boolean DEFAULT true)
RETURNS SETOF live_session
AS 'MODULE_PATHNAME', 'sm_session_get'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_get(text, inet, text, boolean) IS
'the live session of a token, or no row';

CREATE FUNCTION session_get_json(
	token text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL,
	touch boolean DEFAULT true)
RETURNS json
AS 'MODULE_PATHNAME', 'sm_session_get_json'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_get_json(text, inet, text, boolean) IS
'what session_get returns as one JSON object, or null: the fastest way to read a session; times are microseconds since 1970, and read_at is when the row was read';

CREATE FUNCTION session_update(
	token text,
	patch jsonb,
	expected_version integer DEFAULT NULL,
	replace boolean DEFAULT false)
RETURNS TABLE (version integer, data jsonb)
AS 'MODULE_PATHNAME', 'sm_session_update'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_update(text, jsonb, integer, boolean) IS
'change a live session''s data by JSON Merge Patch (RFC 7396), or replace it; no row if the session is not live';

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
AS 'MODULE_PATHNAME', 'sm_session_refresh'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_refresh(text, boolean, interval, inet, text) IS
'extend a live session and, with rotate, replace its token; status extended, rotated, already_rotated, reused, proof_required or ended';

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
AS 'MODULE_PATHNAME', 'sm_session_elevate'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_elevate(text, jsonb, jsonb) IS
'record that the user authenticated more strongly: replace auth (except members whose names begin with an underscore), optionally data, and always the token, without a grace period for the old one';

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
AS 'MODULE_PATHNAME', 'sm_session_switch_tenant'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_switch_tenant(text, text, jsonb) IS
'replace a live session by a new one in another tenant, with the same auth and absolute end and with only the given data; status rotated, already_rotated, proof_required or ended';

CREATE FUNCTION session_invalidate(token text, reason text DEFAULT 'logout')
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_invalidate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_invalidate(text, text) IS
'log out: end the session of a token; returns its user, or null if it was not live';

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
AS 'MODULE_PATHNAME', 'sm_session_get_id'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_get_id(uuid, text) IS
'what is known of a user''s live session by its id, for work beside requests: never a token, never data; ends_at is when it ends unless it is used or refreshed';

CREATE FUNCTION session_invalidate_id(session_id uuid, user_id text DEFAULT NULL, reason text DEFAULT 'admin')
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_invalidate_id'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_invalidate_id(uuid, text, text) IS
'end a session by its id, with a user only if it belongs to that user; returns its user, or null if it was not live';

CREATE FUNCTION session_invalidate_all(
	user_id text,
	except_token text DEFAULT NULL,
	tenant_id text DEFAULT NULL,
	reason text DEFAULT 'logout_all')
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_invalidate_all'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_invalidate_all(text, text, text, text) IS
'end every live session of a user, optionally only in one tenant and except that of one token; returns how many';

CREATE FUNCTION session_update_user(user_id text, patch jsonb, tenant_id text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_update_user'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_update_user(text, jsonb, text) IS
'patch the data of every live session of a user (RFC 7396), optionally only in one tenant; returns how many';

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
AS 'MODULE_PATHNAME', 'sm_session_list'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 5;

COMMENT ON FUNCTION session_list(text, text, boolean, uuid, integer) IS
'a user''s sessions, newest first, one page at a time: pass the last session_id as after; never a token, never data';

CREATE FUNCTION session_bind(token text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sm_session_bind'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_bind(text) IS
'make a live session''s user, tenant, actor and id the identity of this transaction, for row-level security; if the session is not live, return false and leave no identity. In place of a token: an assertion that a trusted database has made for this one';

CREATE FUNCTION session_bind_id(session_id uuid, user_id text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sm_session_bind_id'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_bind_id(uuid, text) IS
'like session_bind, but finds a user''s session by its id; for tasks and other work that has no token';

CREATE FUNCTION session_user_id()
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_user_id'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION session_user_id() IS 'user that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_tenant_id()
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_tenant_id'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION session_tenant_id() IS 'tenant that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_actor_id()
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_actor_id'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION session_actor_id() IS 'person who acts as the user that session_bind or session_bind_id bound in this transaction, or null';

CREATE FUNCTION session_id()
RETURNS uuid
AS 'MODULE_PATHNAME', 'sm_session_id'
LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION session_id() IS 'session that session_bind or session_bind_id bound in this transaction, or null';

-- Sessions that are bound to a device, whose token works only with a proof behind
-- it: token || '.' || proof.  These functions ask for none.
CREATE FUNCTION session_device_challenge(token text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_device_challenge'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_device_challenge(text) IS
'what the device of a live session has to sign, to be bound or to prove itself; null if the session is not live';

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
AS 'MODULE_PATHNAME', 'sm_session_bind_device'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_bind_device(text, jsonb, text, inet, text) IS
'bind a live session to the public key (JSON Web Key) of a device that has signed a challenge, which the caller has verified; replaces the token; status bound, already_bound, already_rotated, bad_challenge or ended';

CREATE FUNCTION session_prove_device(token text, challenge text)
RETURNS TABLE (
	status text,
	proof text,
	proof_expires_at timestamptz)
AS 'MODULE_PATHNAME', 'sm_session_prove_device'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_prove_device(text, text) IS
'a new proof for a session whose device has signed a challenge, which the caller has verified against session_device(); status proved, bad_challenge, not_bound or ended';

CREATE FUNCTION session_device(token text)
RETURNS TABLE (
	session_id uuid,
	user_id text,
	binding_id uuid,
	key jsonb,
	thumbprint text,
	bound_at timestamptz,
	proved_at timestamptz)
AS 'MODULE_PATHNAME', 'sm_session_device'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_device(text) IS
'the device that a live session is bound to; no row if the session is not live or not bound';

CREATE FUNCTION session_device_report(
	token text,
	skipped boolean,
	cause text,
	ip inet DEFAULT NULL,
	user_agent text DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'sm_session_device_report'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_device_report(text, boolean, text, inet, text) IS
'record that a bound session''s browser said why it sends no proof (skipped), or that what it sent is none: event device_proof_skipped or device_proof_failed; false if the session is not live or not bound';

CREATE FUNCTION session_assertion(token text, audience text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_assertion'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_assertion(text, text) IS
'a signed statement of whose live session this is, good for 30 seconds and one audience: session_bind takes it in the database whose session_audience() that is; null if the session is not live';

CREATE FUNCTION session_assertion_id(session_id uuid, user_id text, audience text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_assertion_id'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_assertion_id(uuid, text, text) IS
'like session_assertion, but finds a user''s session by its id; for tasks and other work that has no token';

CREATE FUNCTION session_assertion_keys()
RETURNS jsonb
AS 'MODULE_PATHNAME', 'sm_session_assertion_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_assertion_keys() IS
'public keys that assertions of this database are signed with, as a JSON Web Key Set, for session_trust in another one';

CREATE FUNCTION session_audience()
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_audience'
LANGUAGE C STABLE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_audience() IS
'the audience that an assertion must have to be bound in this database; null before the first key';

CREATE FUNCTION session_trust(keys jsonb)
RETURNS integer
AS 'MODULE_PATHNAME', 'sm_session_trust'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_trust(jsonb) IS
'believe assertions that are signed with these keys, which session_assertion_keys() of another database has returned, and no others of that database; returns how many';

CREATE FUNCTION session_distrust(issuer uuid)
RETURNS integer
AS 'MODULE_PATHNAME', 'sm_session_distrust'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_distrust(uuid) IS
'believe no more assertions of a database; returns how many of its keys were trusted';

CREATE FUNCTION session_status(token text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_status'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_status(text) IS
'for administrators: active, proof_required, expired, idle, revoked, actor_ended, unknown or malformed; never show it to a client';

CREATE FUNCTION session_end_reason(token text)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_end_reason'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_end_reason(text) IS
'why the session of this token has ended: expired, idle, actor_ended, or the reason for its revocation; null if it is live or unknown, or if the secret is wrong';

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
-- Administration.  These functions run SQL on the tables as the extension's
-- owner, with their own search_path.
--

CREATE FUNCTION session_invalidate_tenant(tenant_id text, reason text DEFAULT 'admin')
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_invalidate_tenant'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_invalidate_tenant(text, text) IS
'end every live session of a tenant; returns how many';

CREATE FUNCTION session_invalidate_everything(reason text DEFAULT 'admin')
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_invalidate_everything'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_invalidate_everything(text) IS
'end every live session of this database; returns how many';

CREATE FUNCTION session_history(
	session_id uuid DEFAULT NULL,
	user_id text DEFAULT NULL,
	since timestamptz DEFAULT NULL,
	max_rows integer DEFAULT 100)
RETURNS SETOF session_events
AS 'MODULE_PATHNAME', 'sm_session_history'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_sort = off;

COMMENT ON FUNCTION session_history(uuid, text, timestamptz, integer) IS
'events of a session, of a user, or of all, newest first';

CREATE FUNCTION session_critical_events(
	max_rows integer DEFAULT 20,
	tenant_id text DEFAULT NULL)
RETURNS SETOF session_events
AS 'MODULE_PATHNAME', 'sm_session_critical_events'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 20
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_sort = off SET jit = off;

COMMENT ON FUNCTION session_critical_events(integer, text) IS
'the newest critical events of all sessions or of a tenant''s, newest first';

CREATE FUNCTION session_activity(
	since timestamptz DEFAULT NULL,
	tenant_id text DEFAULT NULL)
RETURNS TABLE (
	hour timestamptz,
	until timestamptz,
	event text,
	reason text,
	events bigint)
AS 'MODULE_PATHNAME', 'sm_session_activity'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 1000
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_sort = off SET jit = off;

COMMENT ON FUNCTION session_activity(timestamptz, text) IS
'numbers of events by the hour, type and reason, of all sessions or of a tenant''s, by default of the last 24 hours';

CREATE FUNCTION session_top(
	max_rows integer DEFAULT 10,
	tenant_id text DEFAULT NULL)
RETURNS TABLE (
	user_id text,
	sessions bigint,
	last_seen_at timestamptz)
AS 'MODULE_PATHNAME', 'sm_session_top'
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_top(integer, text) IS
'the users with the most sessions, of all or of a tenant''s, with those that have ended and are not deleted yet';

CREATE FUNCTION session_active_count(tenant_id text DEFAULT NULL, user_id text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_active_count'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_active_count(text, text) IS
'exact number of live sessions, optionally only of a tenant or a user';

CREATE FUNCTION session_active_estimate()
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_active_estimate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_active_estimate() IS
'number of live sessions, estimated from at most 1,000 pages of the table';

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
AS 'MODULE_PATHNAME', 'sm_session_cleanup'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_cleanup(integer, integer) IS
'a step of maintenance: delete ended sessions, create event partitions ahead, drop those past retention, move up to 10,000 events out of the default partition; what cannot be done is skipped with a WARNING';

CREATE FUNCTION session_export(user_id text, pgp_public_key text DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'sm_session_export'
LANGUAGE C VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_export(text, text) IS
'everything stored about a user, as JSON, or with an armoured public key as an armoured PGP message';

CREATE FUNCTION session_erase(user_id text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_erase'
LANGUAGE C VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_erase(text) IS
'delete a user''s sessions and anonymise the user''s events; returns the number of deleted sessions';

CREATE FUNCTION session_key_generate()
RETURNS integer
AS 'MODULE_PATHNAME', 'sm_session_key_generate'
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_key_generate() IS
'append a random key to session_manager.key_file, record it and return its id; the first key becomes active; superusers only';

CREATE FUNCTION session_key_add(key_id integer)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_key_add'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_key_add(integer) IS
'record a key of the key file, with its check value; the first key becomes active';

CREATE FUNCTION session_key_activate(key_id integer)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_key_activate'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_key_activate(integer) IS
'seal everything that is written from now on with this key';

CREATE FUNCTION session_key_retire(key_id integer)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_key_retire'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_key_retire(integer) IS
'retire a key; refused while a session uses it';

CREATE FUNCTION session_key_revoke(key_id integer)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_key_revoke'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_key_revoke(integer) IS
'emergency stop: end every session under the key from the commit on';

CREATE FUNCTION session_keys()
RETURNS TABLE (
	key_id integer,
	state text,
	available boolean,
	created_at timestamptz,
	activated_at timestamptz,
	retired_at timestamptz,
	revoked_at timestamptz)
AS 'MODULE_PATHNAME', 'sm_session_keys'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 3
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_keys() IS
'the keys, and whether this server holds the right material for each; never the material';

CREATE FUNCTION session_reencrypt(batch integer DEFAULT 500)
RETURNS bigint
AS 'MODULE_PATHNAME', 'sm_session_reencrypt'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_reencrypt(integer) IS
're-seal up to batch sessions under the active key; call until it returns 0';

CREATE FUNCTION session_hand_over()
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_hand_over'
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_hand_over() IS
'wait until nothing is under way any more for sessions outside of session_manager.shard, so that another server may take them over';

CREATE FUNCTION session_info()
RETURNS TABLE (key text, value text)
AS 'MODULE_PATHNAME', 'sm_session_info'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_info() IS
'version, what is enabled and why anything is not, key state, next sweep';

-- Each requirement once, for every client that judges settings of its own: where
-- the server cannot know, met is 'application'.
CREATE FUNCTION session_audit(profile text DEFAULT 'asvs2')
RETURNS TABLE (reference text, requirement text, met text, setting text, value text, hint text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 30
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	overall interval;
	idle interval;
	key_file text;
	redaction text;
BEGIN
	IF ($1 ~ '^(aal|asvs)[123]$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('unrecognized profile of requirements: "%s"', $1),
			HINT = 'The profiles are "aal1", "aal2", "aal3", "asvs1", "asvs2" and "asvs3".';
	END IF;

	-- first, as it loads the library, which defines the settings
	EXECUTE (SELECT format('SELECT max(value) FILTER (WHERE key = %L), max(value) FILTER (WHERE key = %L) FROM %I.session_info()',
			'key_file', 'log_redaction', n.nspname)
		FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'session_manager')
		INTO key_file, redaction;
	overall := current_setting('session_manager.max_lifetime');
	idle := current_setting('session_manager.idle_timeout');

	-- ok: null where the application decides.  shown: null for the setting's value.
	RETURN QUERY SELECT r.reference, r.requirement,
		CASE r.ok WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'application' END,
		r.setting, coalesce(r.shown, current_setting('session_manager.' || r.setting)),
		CASE WHEN r.ok IS NOT TRUE THEN r.hint END
	FROM (VALUES
		('NIST SP 800-63B-4 2.1.3', 'aal1', 'overall timeout: should be at most 30 days',
			overall <= '30 days', 'max_lifetime', NULL,
			'Let max_lifetime be 30d or shorter.'),
		('NIST SP 800-63B-4 2.2.3', 'aal2', 'overall timeout: should be at most 24 hours',
			overall <= '24 hours', 'max_lifetime', NULL,
			'Let max_lifetime be 24h or shorter.'),
		('NIST SP 800-63B-4 2.2.3', 'aal2', 'inactivity timeout: should be at most 1 hour',
			idle > '0' AND idle <= '1 hour', 'idle_timeout', NULL,
			'Let idle_timeout be 1h or shorter, and not 0.'),
		('NIST SP 800-63B-4 2.3.3', 'aal3', 'overall timeout: shall be at most 12 hours',
			overall <= '12 hours', 'max_lifetime', NULL,
			'Let max_lifetime be 12h or shorter.'),
		('NIST SP 800-63B-4 2.3.3', 'aal3', 'inactivity timeout: should be at most 15 minutes',
			idle > '0' AND idle <= '15 minutes', 'idle_timeout', NULL,
			'Let idle_timeout be 15min or shorter, and not 0.'),
		('NIST SP 800-63B-4 2.4.2', 'aal[123]', 'records are kept for as long as the applicable policy says',
			NULL, 'event_retention', NULL,
			'Compare event_retention with the policy; 0 keeps events for ever.'),
		('NIST SP 800-63B-4 5.1 (persistence)', 'aal[123]', 'bearer secrets should not survive a restart of the browser',
			NULL, NULL, NULL,
			'Give the browser a cookie without an expiry, or bind the session to the device.'),
		('NIST SP 800-63B-4 5.1 (origin)', 'aal[123]', 'the session host makes the secret at an authentication, for a session of no higher level',
			NULL, NULL, NULL,
			'Call session_create right after the user has been authenticated, and record in auth how.'),
		('NIST SP 800-63B-4 5.1 (2)', 'aal[123]', 'secrets have at least 64 bits',
			true, NULL, '256 bits', NULL),
		('NIST SP 800-63B-4 5.1 (2)', 'aal[123]', 'secrets come from an approved random bit generator',
			NULL, NULL, 'libsodium, not validated',
			'libsodium takes random bytes from the operating system: whether that is approved depends on it.'),
		('NIST SP 800-63B-4 5.1 (3)', 'aal[123]', 'a logout invalidates the secret',
			NULL, NULL, NULL,
			'Call session_invalidate, and take the cookie back.'),
		('NIST SP 800-63B-4 5.1 (4), (6)', 'aal[123]', 'secrets travel through authenticated protected channels, which nobody between can read',
			NULL, NULL, NULL,
			'Use TLS from the browser to the application, and send PostgreSQL the digest form.'),
		('NIST SP 800-63B-4 5.1 (5)', 'aal[123]', 'secrets are not accepted after the timeouts',
			true, NULL, 'session_get compares with the clock', NULL),
		('NIST SP 800-63B-4 5.1 (storage)', 'aal[123]', 'secrets should not be kept where scripts can read them',
			NULL, NULL, NULL,
			'Keep the token in an HttpOnly cookie, not in local storage.'),
		('NIST SP 800-63B-4 5.1 (transport)', 'aal[123]', 'sessions do not fall back from https to http',
			NULL, NULL, NULL,
			'Send Strict-Transport-Security, and a Secure cookie.'),
		('NIST SP 800-63B-4 5.1 (CSRF)', 'aal[123]', 'POST and PUT carry an identifier of the session, which is verified',
			NULL, NULL, NULL,
			'Require a token against request forgery.'),
		('NIST SP 800-63B-4 5.1 (logoff)', 'aal[123]', 'users should find a way to log off',
			NULL, NULL, NULL,
			'Show a sign-out on each page.'),
		('NIST SP 800-63B-4 5.1.1 (1)', 'aal[123]', 'cookies are sent over https only',
			NULL, NULL, NULL, 'Set Secure.'),
		('NIST SP 800-63B-4 5.1.1 (2)', 'aal[123]', 'cookies are sent to as few hosts and paths as practical',
			NULL, NULL, NULL, 'Set no Domain.'),
		('NIST SP 800-63B-4 5.1.1 (3)', 'aal[123]', 'cookies should be hidden from JavaScript',
			NULL, NULL, NULL, 'Set HttpOnly.'),
		('NIST SP 800-63B-4 5.1.1 (4)', 'aal[123]', 'cookies should expire with the session or soon after',
			NULL, NULL, NULL, 'Let Max-Age end at absolute_expires_at, or set none.'),
		('NIST SP 800-63B-4 5.1.1 (5)', 'aal[123]', 'cookies should have the prefix __Host- and Path=/',
			NULL, NULL, NULL, 'Begin the name with __Host-.'),
		('NIST SP 800-63B-4 5.1.1 (6)', 'aal[123]', 'cookies should have SameSite=Lax or Strict',
			NULL, NULL, NULL, 'Set SameSite=Lax or Strict.'),
		('NIST SP 800-63B-4 5.1.1 (7)', 'aal[123]', 'cookies hold an opaque string, and nothing personal',
			true, NULL, 'the token: an id and a random secret', NULL),
		('NIST SP 800-63B-4 5.1.2', 'aal[123]', 'an access token alone does not mean that the user is there',
			NULL, NULL, NULL,
			'Make sessions from access tokens of a login only.'),
		('NIST SP 800-63B-4 5.2 (timeouts)', 'aal[123]', 'use resets the inactivity timeout; a timeout ends the session',
			true, NULL, 'session_get', NULL),
		('NIST SP 800-63B-4 5.2 (reauthentication)', 'aal[123]', 'a reauthentication resets both timeouts',
			NULL, NULL, NULL,
			'After a full reauthentication call session_create and end the old session; session_elevate does not move the absolute end.'),
		('NIST SP 800-63B-4 5.2 (documentation)', 'aal[123]', 'the time limits are documented in the system security plan',
			NULL, NULL, NULL, 'Document max_lifetime and idle_timeout.'),
		('NIST SP 800-63B-4 5.3', 'aal[123]', 'where fraud is detected in a session, it should be ended, or somebody notified',
			true, NULL, 'a replay ends the session', NULL),

		('ASVS v5.0.0-3.3.1', 'asvs[123]', 'cookies are Secure, and named __Host- or __Secure-',
			NULL, NULL, NULL, 'Set Secure, and begin the name with __Host-.'),
		('ASVS v5.0.0-3.3.2', 'asvs[23]', 'cookies have the SameSite that their purpose needs',
			NULL, NULL, NULL, 'Set SameSite=Lax or Strict.'),
		('ASVS v5.0.0-3.3.3', 'asvs[23]', 'cookies that are not for other hosts are named __Host-',
			NULL, NULL, NULL, 'Begin the name with __Host-.'),
		('ASVS v5.0.0-3.3.4', 'asvs[23]', 'cookies that scripts do not need are HttpOnly, and their value is sent in Set-Cookie alone',
			NULL, NULL, NULL, 'Set HttpOnly, and put the token into no body.'),
		('ASVS v5.0.0-3.3.5', 'asvs3', 'name and value of a cookie have at most 4096 bytes',
			true, NULL, 'a token has 68 bytes', NULL),
		('ASVS v5.0.0-3.4.1', 'asvs[123]', 'Strict-Transport-Security for a year or longer; from level 2 on for all subdomains',
			NULL, NULL, NULL, 'Send the header with every response.'),
		('ASVS v5.0.0-3.5.1', 'asvs[123]', 'requests to sensitive functions come from the application itself (CSRF)',
			NULL, NULL, NULL, 'Require a token against request forgery.'),
		('ASVS v5.0.0-7.1.1', 'asvs[23]', 'inactivity timeout and absolute lifetime are documented, and deviations from NIST SP 800-63B justified',
			NULL, NULL, NULL, 'Document max_lifetime and idle_timeout.'),
		('ASVS v5.0.0-7.1.2', 'asvs[23]', 'it is documented how many sessions an account may have, and what happens at the limit',
			nullif(current_setting('session_manager.max_sessions_per_user') <> '0', false), 'max_sessions_per_user', NULL,
			'Set max_sessions_per_user and on_limit, or document that there is no limit.'),
		('ASVS v5.0.0-7.1.3', 'asvs[23]', 'systems of a federation that make sessions are documented, with their lifetimes and ends',
			NULL, NULL, NULL, 'Document the identity provider''s sessions.'),
		('ASVS v5.0.0-7.2.1', 'asvs[123]', 'tokens are verified by a trusted backend',
			true, NULL, 'in the database', NULL),
		('ASVS v5.0.0-7.2.2', 'asvs[123]', 'tokens are made dynamically',
			true, NULL, 'by session_create', NULL),
		('ASVS v5.0.0-7.2.3', 'asvs[123]', 'reference tokens are unique and have 128 bits or more from a CSPRNG',
			true, NULL, '256 bits', NULL),
		('ASVS v5.0.0-7.2.4', 'asvs[123]', 'an authentication makes a new token and ends the present one',
			NULL, NULL, NULL,
			'At a login create a session and end the one presented; at a reauthentication call session_elevate.'),
		('ASVS v5.0.0-7.3.1', 'asvs[23]', 'there is an inactivity timeout',
			idle > '0', 'idle_timeout', NULL,
			'Set idle_timeout.'),
		('ASVS v5.0.0-7.3.2', 'asvs[23]', 'there is an absolute lifetime, as the risk analysis says',
			nullif(overall <= '30 days', false), 'max_lifetime', NULL,
			'Justify a max_lifetime beyond 30 days, the longest of NIST SP 800-63B, or shorten it.'),
		('ASVS v5.0.0-7.4.1', 'asvs[123]', 'a session that has ended cannot be used: not through a cache',
			current_setting('session_manager.redis_mode') <> 'async', 'redis_mode', NULL,
			'Let redis_mode be strict or off: with async a cached session outlives its end by moments.'),
		('ASVS v5.0.0-7.4.1', 'asvs[123]', 'a session that has ended cannot be used: not through a standby',
			nullif(current_setting('session_manager.revoke_commit') = 'remote_apply', false), 'revoke_commit', NULL,
			'If sessions are read from standbys, let revoke_commit be remote_apply.'),
		('ASVS v5.0.0-7.4.2', 'asvs[123]', 'all sessions end when an account is disabled or deleted',
			NULL, NULL, NULL, 'Call session_invalidate_all then.'),
		('ASVS v5.0.0-7.4.3', 'asvs[23]', 'all other sessions can be ended when an authentication factor has changed',
			NULL, NULL, NULL, 'Call session_invalidate_all with except_token then.'),
		('ASVS v5.0.0-7.4.4', 'asvs[23]', 'pages that need a login show a logout',
			NULL, NULL, NULL, 'Show a sign-out on each page.'),
		('ASVS v5.0.0-7.4.5', 'asvs[23]', 'administrators can end the sessions of a user, and of all users',
			true, NULL, 'session_invalidate_all, session_invalidate_everything', NULL),
		('ASVS v5.0.0-7.5.1', 'asvs[23]', 'a full reauthentication comes before changes of what affects authentication',
			NULL, NULL, NULL, 'Compare authenticated_at and auth of the session in these views.'),
		('ASVS v5.0.0-7.5.2', 'asvs[23]', 'users see their sessions and, authenticated again, end them',
			NULL, NULL, NULL, 'Use session_list and session_invalidate_id, after a reauthentication.'),
		('ASVS v5.0.0-7.5.3', 'asvs3', 'another authentication comes before highly sensitive operations',
			NULL, NULL, NULL, 'Compare authenticated_at and auth of the session in these views.'),
		('ASVS v5.0.0-7.6.1', 'asvs[23]', 'lifetimes and ends of sessions agree with the identity provider as documented',
			NULL, NULL, NULL, 'Compare max_lifetime with the provider''s.'),
		('ASVS v5.0.0-7.6.2', 'asvs[23]', 'no session is made without an action of the user',
			NULL, NULL, NULL, 'Create sessions only where the user has asked for it.'),
		('ASVS v5.0.0-8.2.4', 'asvs3', 'controls by network and device apply when a session begins',
			current_setting('session_manager.new_device_events') = 'on', 'new_device_events', NULL,
			'Set new_device_events on.'),
		('ASVS v5.0.0-8.2.4', 'asvs3', 'controls by network and device apply during a session',
			current_setting('session_manager.client_binding') <> 'off', 'client_binding', NULL,
			'Let client_binding be log or strict.'),
		('ASVS v5.0.0-13.3.2', 'asvs[23]', 'secrets are accessible to as few as possible: the key file',
			key_file = 'loaded', 'key_file', key_file,
			'Repair what the value says; the file must be readable by the server alone.'),
		('ASVS v5.0.0-16.1.1', 'asvs[23]', 'it is documented how long logs are kept: the audit trail',
			NULL, 'event_retention', NULL,
			'Document event_retention; 0 keeps events for ever.'),
		('ASVS v5.0.0-16.2.5', 'asvs[23]', 'session tokens are logged hashed or masked',
			redaction = 'on', 'redact_tokens', redaction,
			'Preload the library, and set redact_tokens on.')
	) AS r (reference, profiles, requirement, ok, setting, shown, hint)
	WHERE $1 ~ r.profiles;
END
$$;

COMMENT ON FUNCTION session_audit(text) IS
'which requirements of NIST SP 800-63B-4 (aal1, aal2, aal3) or of OWASP ASVS 5.0.0 (asvs1, asvs2, asvs3) the settings meet: yes, no, or as the application decides';

CREATE FUNCTION session_cache_settings()
RETURNS TABLE (mode text, installation uuid, max_age interval)
AS 'MODULE_PATHNAME', 'sm_session_cache_settings'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION session_cache_settings() IS
'what readers of the cache in Redis need to know: whether it is enabled, the name of its epoch key, how old its values may be';

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
AS 'MODULE_PATHNAME', 'sm_session_counters'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION session_counters() IS
'the counters of session_stats, by the OID of the database';

CREATE FUNCTION session_stats_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_stats_reset'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_stats_reset() IS
'set the counters of this database to zero';

CREATE VIEW session_stats AS
	SELECT d.datname AS database_name, c.*
	FROM session_counters() c
	JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) c.database_id;

COMMENT ON VIEW session_stats IS
'cumulative counters, one row per database, since stats_reset; no rows unless the library is preloaded';

REVOKE ALL ON TABLE session_stats FROM PUBLIC;

CREATE FUNCTION session_grant(role regrole, bundle text)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_grant'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_grant(regrole, text) IS
'grant a bundle to a role: the functions of app, admin or monitor, or the columns of reader';

CREATE FUNCTION session_revoke(role regrole, bundle text)
RETURNS void
AS 'MODULE_PATHNAME', 'sm_session_revoke'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION session_revoke(regrole, text) IS
'revoke a bundle from a role';

-- Every backend invalidates its cache of the keys when this table changes.
CREATE FUNCTION session_keys_changed()
RETURNS trigger
AS 'MODULE_PATHNAME', 'sm_session_keys_changed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_keys_changed() IS
'trigger: makes every backend read session_keys again';

-- A row trigger, because logical replication fires no other; statements that
-- change several keys are rare.
CREATE TRIGGER session_keys_changed
AFTER INSERT OR UPDATE OR DELETE ON session_keys
FOR EACH ROW EXECUTE FUNCTION session_keys_changed();
ALTER TABLE session_keys ENABLE ALWAYS TRIGGER session_keys_changed;

CREATE TRIGGER session_keys_truncated
AFTER TRUNCATE ON session_keys
FOR EACH STATEMENT EXECUTE FUNCTION session_keys_changed();
ALTER TABLE session_keys ENABLE ALWAYS TRIGGER session_keys_truncated;

COMMENT ON TRIGGER session_keys_changed ON session_keys IS
'makes every backend read session_keys again';
COMMENT ON TRIGGER session_keys_truncated ON session_keys IS
'makes every backend read session_keys again';

-- For writes that the extension's functions did not make: those record their own.
CREATE FUNCTION session_cache_record()
RETURNS trigger
AS 'MODULE_PATHNAME', 'sm_session_cache_record'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION session_cache_record() IS
'trigger: reports changes to the cache in Redis, if it is enabled';

CREATE TRIGGER session_cache_row
AFTER UPDATE OR DELETE ON user_sessions
FOR EACH ROW EXECUTE FUNCTION session_cache_record();
ALTER TABLE user_sessions ENABLE ALWAYS TRIGGER session_cache_row;

CREATE TRIGGER session_cache_truncate
AFTER TRUNCATE ON user_sessions
FOR EACH STATEMENT EXECUTE FUNCTION session_cache_record();
ALTER TABLE user_sessions ENABLE ALWAYS TRIGGER session_cache_truncate;

CREATE TRIGGER session_cache_row
AFTER UPDATE OR DELETE ON session_keys
FOR EACH ROW EXECUTE FUNCTION session_cache_record();
ALTER TABLE session_keys ENABLE ALWAYS TRIGGER session_cache_row;

CREATE TRIGGER session_cache_truncate
AFTER TRUNCATE ON session_keys
FOR EACH STATEMENT EXECUTE FUNCTION session_cache_record();
ALTER TABLE session_keys ENABLE ALWAYS TRIGGER session_cache_truncate;

COMMENT ON TRIGGER session_cache_row ON user_sessions IS
'reports changes to the cache that the extension''s functions did not make';
COMMENT ON TRIGGER session_cache_truncate ON user_sessions IS
'reports to the cache that all sessions are gone';
COMMENT ON TRIGGER session_cache_row ON session_keys IS
'reports to the cache that a key has been revoked';
COMMENT ON TRIGGER session_cache_truncate ON session_keys IS
'reports to the cache that all keys are gone';

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
		SELECT CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
			c.oid::regclass::text AS name, a.grantee
		FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'session_manager'
		JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'S')
		CROSS JOIN LATERAL aclexplode(c.relacl) a
		WHERE d.classid = 'pg_class'::regclass
			AND d.refclassid = 'pg_extension'::regclass
			AND a.grantee <> c.relowner
		UNION
		SELECT 'FUNCTION', p.oid::regprocedure::text, a.grantee
		FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'session_manager'
		JOIN pg_proc p ON p.oid = d.objid
		CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE d.classid = 'pg_proc'::regclass
			AND d.refclassid = 'pg_extension'::regclass
			AND a.grantee <> p.proowner
	LOOP
		EXECUTE format('REVOKE ALL ON %s %s FROM %s', made.kind, made.name,
			CASE made.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(made.grantee)) END);
	END LOOP;
END
$$;
