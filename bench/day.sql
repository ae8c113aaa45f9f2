-- A day of traffic, of any length.  Tokens are in the order of the logins; those
-- of the last third of a day are in use.
CREATE SEQUENCE bench.head;

-- The part of a day's logins that come before an hour: few at night, 1.8 times
-- the mean at noon.
CREATE FUNCTION bench.before(hour float8) RETURNS float8
LANGUAGE sql IMMUTABLE
AS $$ SELECT hour / 24 - 0.8 * sin(2 * pi() * hour / 24) / (2 * pi()) $$;

-- The day begins with the sessions of the day before, which expire at the hour
-- of their login.
CREATE PROCEDURE bench.log_in_day_before(sessions integer, day interval)
LANGUAGE plpgsql
AS $$
DECLARE
	to_come integer;
	before integer := 0;
BEGIN
	FOR part IN 0 .. 239 LOOP
		to_come := (sessions * bench.before((part + 1) / 10.0::float8))::integer;
		INSERT INTO bench.token
		SELECT nextval('bench.head'), c.session_id, public.session_token_digest(c.session_token)
		FROM generate_series(before + 1, to_come) i,
			LATERAL public.session_create(bench.user_id(i), bench.data(i),
				ttl => greatest(day * ((part + 1) / 240.0::float8), interval '1 s'),
				ip => '192.0.2.1', user_agent => bench.user_agent(), auth => bench.auth(i)) c;
		before := to_come;
		COMMIT;
	END LOOP;
END
$$;

-- A copy as dense as the table when it was new, with the same indexes.
CREATE PROCEDURE bench.copy_afresh()
LANGUAGE plpgsql
AS $$
BEGIN
	CREATE TABLE bench.fresh (LIKE public.user_sessions INCLUDING STORAGE) WITH (fillfactor = 80);
	INSERT INTO bench.fresh SELECT * FROM public.user_sessions;
	CREATE UNIQUE INDEX ON bench.fresh (session_id);
	CREATE INDEX ON bench.fresh (user_id);
	CREATE INDEX ON bench.fresh (sweep_at);
	CREATE INDEX ON bench.fresh (tenant_id) WHERE tenant_id IS NOT NULL;
END
$$;
