-- The same API in SQL with pgcrypto: a table of sealed sessions found by the
-- hash of the token, and a function that opens them.  Needs the variables
-- variant (suffix of the names) and options (of pgp_sym_encrypt).
-- PL/pgSQL, because it keeps the plan of its query between calls; no SET
-- search_path, which would cost it more.

SELECT format($sql$
CREATE TABLE bench.pgcrypto_%1$s (
	token_hash bytea PRIMARY KEY,
	session_id uuid NOT NULL,
	user_id text COLLATE "C" NOT NULL,
	tenant_id text COLLATE "C",
	version integer NOT NULL,
	created_at timestamptz NOT NULL,
	authenticated_at timestamptz NOT NULL,
	last_seen_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	absolute_expires_at timestamptz NOT NULL,
	revoked_at timestamptz,
	sealed bytea NOT NULL
);
ALTER TABLE bench.pgcrypto_%1$s ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE FUNCTION bench.pgcrypto_get_%1$s(token text)
RETURNS TABLE (
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
	cacheable boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1
AS $body$
BEGIN
	RETURN QUERY
	SELECT s.session_id, s.user_id, s.tenant_id, o.body -> 'data', s.version,
		   o.body -> 'auth', s.created_at, s.authenticated_at, s.last_seen_at,
		   s.expires_at, s.absolute_expires_at, true
	FROM bench.pgcrypto_%1$s s,
		 LATERAL (SELECT public.pgp_sym_decrypt(s.sealed,
					current_setting('bench.key'))::jsonb AS body OFFSET 0) o
	WHERE s.token_hash = public.digest(token, 'sha256')
	  AND s.revoked_at IS NULL
	  AND clock_timestamp() < least(s.expires_at, s.absolute_expires_at);
END
$body$;

INSERT INTO bench.pgcrypto_%1$s
SELECT public.digest('token' || i, 'sha256'), gen_random_uuid(), bench.user_id(i),
	   'acme', 1, now(), now(), now(), now() + interval '1 day',
	   now() + interval '7 days', NULL,
	   public.pgp_sym_encrypt(
			jsonb_build_object('data', bench.data(i), 'auth', bench.auth(i))::text,
			current_setting('bench.key'), %2$L)
FROM generate_series(1, %3$s) i;
ANALYZE bench.pgcrypto_%1$s;
$sql$, :'variant', :'options', :'rows')
\gexec
