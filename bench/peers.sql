-- The peers: the tables a careful developer would write without the
-- extension, in the shape of the extension's own, data unsealed.
CREATE SCHEMA bench;

-- user_sessions with data and auth as plain jsonb in place of sealed_data
CREATE TABLE bench.session (
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
	revoked_at timestamptz,
	revoked_reason text,
	rotated_at timestamptz,
	successor_used_at timestamptz,
	previous_valid_until timestamptz,
	previous_key_id integer,
	previous_verifier bytea,
	verifier bytea NOT NULL,
	data jsonb NOT NULL,
	auth jsonb,
	user_id text COLLATE "C" NOT NULL,
	tenant_id text COLLATE "C",
	ip inet,
	user_agent text,
	PRIMARY KEY (session_id)
) WITH (fillfactor = 80);
CREATE INDEX ON bench.session (user_id);
CREATE INDEX ON bench.session (sweep_at);

CREATE SEQUENCE bench.event_event_id_seq CACHE 32;
CREATE TABLE bench.event (
	event_id bigint NOT NULL DEFAULT nextval('bench.event_event_id_seq'),
	at timestamptz NOT NULL,
	session_id uuid,
	user_id text COLLATE "C",
	tenant_id text COLLATE "C",
	event text NOT NULL,
	ip inet,
	user_agent text,
	detail jsonb
) PARTITION BY RANGE (at);

-- the partitions and indexes that session_events has, one for one
DO $$
DECLARE
	part record;
	index_definition text;
BEGIN
	FOR part IN
		SELECT c.oid, c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = to_regclass('public.session_events')
	LOOP
		EXECUTE format('CREATE TABLE bench.%I PARTITION OF bench.event %s',
					   part.relname, part.bound);
		FOR index_definition IN
			SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = part.oid
		LOOP
			EXECUTE replace(index_definition, ' ON public.', ' ON bench.');
		END LOOP;
	END LOOP;
END
$$;

-- Realistic content: 400 bytes of data, a user of two sessions on average.
CREATE FUNCTION bench.user_id(i bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT 'auth0|' || substr(md5(((i + 1) / 2)::text), 1, 24) $$;

CREATE FUNCTION bench.data(i bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
	SELECT format('{"plan": "team", "roles": ["member", "billing"], '
		'"locale": "de-DE", "profile": {"name": "Zoë Müller %s", '
		'"email": "user%s@example.com", "picture": "https://cdn.example.com/%s.png", '
		'"email_verified": true}, "settings": {"theme": "dark", "page_size": 50, '
		'"beta": false}, "cart": {"items": 3, "total": 129.90, "currency": "EUR"}, '
		'"csrf": "%s"}',
		lpad(i::text, 8, '0'), lpad(i::text, 8, '0'), substr(md5(i::text), 1, 18),
		md5((i + 2)::text))::jsonb
$$;

CREATE FUNCTION bench.auth(i bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT '{"amr": ["pwd", "otp"], "acr": "aal2"}'::jsonb $$;

-- version 7 ids, in order of ms as those of the extension
CREATE FUNCTION bench.uuid7(ms bigint, i bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
	SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(i::text), 1, 3) ||
			'8' || substr(md5(i::text), 4, 15))::uuid
$$;

CREATE FUNCTION bench.user_agent() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
	SELECT 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0'
$$;

DO $$
BEGIN
	IF octet_length(bench.data(1)::text) <> 400 THEN
		RAISE EXCEPTION 'data is % bytes, not 400', octet_length(bench.data(1)::text);
	END IF;
END
$$;

-- the sessions of the extension, with what finds them on either side
CREATE TABLE bench.token (
	i integer PRIMARY KEY,
	session_id uuid NOT NULL,
	digest text NOT NULL
);

-- Log in users first to last.  A login takes a lock that its transaction
-- keeps, so not too many in one.
CREATE PROCEDURE bench.login(first integer, last integer)
LANGUAGE plpgsql
AS $$
BEGIN
	FOR start IN first .. last BY 1000 LOOP
		INSERT INTO bench.token
		SELECT i, c.session_id, public.session_token_digest(c.session_token)
		FROM generate_series(start, least(start + 999, last)) i,
			LATERAL public.session_create(bench.user_id(i), bench.data(i),
				ip => '192.0.2.1', user_agent => bench.user_agent(),
				auth => bench.auth(i)) c;
		COMMIT;
	END LOOP;
END
$$;

-- The same sessions in the bare table.
CREATE PROCEDURE bench.copy_sessions(first integer, last integer)
LANGUAGE sql
AS $$
	INSERT INTO bench.session (session_id, created_at, authenticated_at, last_seen_at, expires_at,
		absolute_expires_at, sweep_at, ttl, version, key_id, verifier_key_id,
		user_id, verifier, data, auth, tenant_id, ip, user_agent)
	SELECT s.session_id, s.created_at, s.authenticated_at, s.last_seen_at, s.expires_at,
		s.absolute_expires_at, s.sweep_at, s.ttl, s.version, s.key_id, s.verifier_key_id,
		s.user_id, s.verifier, bench.data(t.i), bench.auth(t.i), s.tenant_id, s.ip, s.user_agent
	FROM public.user_sessions s JOIN bench.token t USING (session_id)
	WHERE t.i BETWEEN first AND last;
$$;

-- Every so many of them read from both sides: a benchmark of wrong answers is
-- worth nothing.
CREATE PROCEDURE bench.compare(step integer)
LANGUAGE plpgsql
AS $$
BEGIN
	PERFORM FROM (SELECT * FROM bench.token WHERE i % step = 0) t,
		LATERAL public.session_get(t.digest, touch => false) g
		JOIN bench.session s USING (session_id)
	WHERE (g.user_id, g.data, g.version, g.auth, g.created_at, g.expires_at, g.absolute_expires_at)
		IS DISTINCT FROM
		(s.user_id, s.data, s.version, s.auth, s.created_at, s.expires_at, s.absolute_expires_at)
		OR g.data IS DISTINCT FROM bench.data(t.i)
		OR (public.session_get_json(t.digest, touch => false) -> 'data')::jsonb IS DISTINCT FROM g.data;
	IF FOUND THEN
		RAISE EXCEPTION 'the sides return different sessions';
	END IF;
END
$$;

-- logins to come: what the client sends, and what the peer's client has to
-- bring along because nothing on the server makes it
CREATE TABLE bench.login (
	k integer PRIMARY KEY,
	user_id text NOT NULL,
	ip inet NOT NULL,
	user_agent text NOT NULL,
	data jsonb NOT NULL,
	auth jsonb NOT NULL,
	session_id uuid NOT NULL,
	verifier bytea NOT NULL
);
