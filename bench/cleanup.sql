-- Sessions for the cleanup, on both sides alike.  They are copies of one real
-- session under other ids and users: a cleanup reads neither the seal nor the
-- verifier.  Ids run with the clock, so sessions that expire together lie
-- together, as those of one minute's logins do.
DO $$
BEGIN
	PERFORM session_create(bench.user_id(0), bench.data(0), ip => '192.0.2.1',
		user_agent => bench.user_agent(), auth => bench.auth(0));
END
$$;
CREATE TABLE bench.sample AS SELECT * FROM user_sessions LIMIT 1;

CREATE PROCEDURE bench.fill(target regclass, first bigint, last bigint, expired boolean)
LANGUAGE plpgsql
AS $$
BEGIN
	EXECUTE format($sql$
		INSERT INTO %s (session_id, created_at, authenticated_at, last_seen_at,
			expires_at, absolute_expires_at, sweep_at, ttl, version, key_id,
			verifier_key_id, user_id, verifier, ip, user_agent, %s)
		SELECT bench.uuid7(1700000000000 + i, i), x.created_at, x.authenticated_at,
			x.last_seen_at, %s, x.absolute_expires_at, %s, x.ttl, x.version,
			x.key_id, x.verifier_key_id, bench.user_id(i), x.verifier, x.ip,
			x.user_agent, %s
		FROM bench.sample x, generate_series($1, $2) i,
			LATERAL (SELECT x.created_at + i * interval '1 microsecond' AS at) t
		$sql$, target,
		CASE target WHEN 'public.user_sessions'::regclass THEN 'sealed_data' ELSE 'data, auth' END,
		CASE WHEN expired THEN 't.at - interval ''1 hour''' ELSE 'x.expires_at' END,
		CASE WHEN expired THEN 't.at - interval ''1 hour''' ELSE 't.at + x.ttl' END,
		CASE target WHEN 'public.user_sessions'::regclass THEN 'x.sealed_data'
			ELSE 'bench.data(i), bench.auth(i)' END)
	USING first, last;
END
$$;
