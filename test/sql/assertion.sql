--
-- session_assertion: the identity for row-level security in another database
--
SELECT session_id, session_token FROM session_create('alice', tenant_id => 'acme') \gset a_
SELECT session_id, session_token FROM session_create('Zoë "z" \ ☃') \gset z_
SELECT session_token FROM session_create('bob', actor_token => :'a_session_token', auth => '{}') \gset i_
CREATE FUNCTION test.part(assertion text, n int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT convert_from(decode(rpad(translate(part, '-_', '+/'), (length(part) + 3) / 4 * 4, '='), 'base64'), 'UTF8')::jsonb
	FROM split_part(assertion, '.', n) AS part
$$;

-- What it says
SELECT session_assertion(:'a_session_token', session_audience()) AS a,
	session_assertion(session_token_digest(:'z_session_token'), 'billing') AS z,
	session_assertion(:'i_session_token', 'billing') AS i \gset
SELECT test.part(:'a', 1) - 'kid' AS header, test.part(:'a', 1) ->> 'kid' = session_assertion_keys() #>> '{keys,0,kid}' AS kid;
SELECT test.part(:'a', 2) - '{iss,aud,sid,iat,exp}'::text[] AS claims,
	(SELECT array_agg(key ORDER BY key) FROM jsonb_object_keys(test.part(:'a', 2)) AS key) AS names;
SELECT c ->> 'iss' = installation_id::text AS iss, c ->> 'aud' = installation_id::text AS aud,
	c ->> 'sid' = :'a_session_id' AS sid, (c ->> 'exp')::int - (c ->> 'iat')::int AS seconds,
	abs((c ->> 'iat')::int - extract(epoch FROM now())) < 60 AS iat
FROM test.part(:'a', 2) AS c, session_installation;
SELECT test.part(:'z', 2) - '{iss,sid,iat,exp}'::text[] AS claims;
SELECT test.part(:'i', 2) - '{iss,sid,iat,exp}'::text[] AS claims;
-- no longer than the session
SELECT session_token FROM session_create('alice', ttl => '10 s') \gset s_
SELECT (c ->> 'exp')::int - (c ->> 'iat')::int BETWEEN 1 AND 11 AS short
FROM test.part(session_assertion(:'s_session_token', 'billing'), 2) AS c;
-- the keys: those that may sign, and no secret
SELECT key - '{x,kid}'::text[] AS key, length(key ->> 'x') AS x, length(key ->> 'kid') AS kid
FROM jsonb_array_elements(session_assertion_keys() -> 'keys') AS key GROUP BY 1, 2, 3;
SELECT jsonb_array_length(session_assertion_keys() -> 'keys') = count(*) AS all_keys FROM session_keys()
WHERE state IN ('added', 'active', 'inactive');

-- Of live sessions alone
SELECT session_assertion(test.change_char(:'a_session_token', 68), 'billing');
SELECT session_assertion('sm1_' || repeat('A', 64), 'billing');
SELECT session_assertion('x', 'billing');
SELECT session_assertion(NULL, 'billing');
SELECT session_assertion(:'a', 'billing');	-- an assertion is no token
SELECT session_invalidate(:'s_session_token') IS NOT NULL AS ended;
SELECT session_assertion(:'s_session_token', 'billing');
-- by its id, and its user's
SELECT test.part(session_assertion_id(:'a_session_id', 'alice', 'billing'), 2) - '{iss,sid,iat,exp}'::text[] AS claims;
SELECT session_assertion_id(:'a_session_id', 'bob', 'billing');
SELECT session_assertion_id(gen_random_uuid(), 'alice', 'billing');
SELECT session_assertion_id(NULL, 'alice', 'billing');
CALL test.error(format('SELECT session_assertion_id(%L, NULL, %L)', :'a_session_id', 'billing'));
CALL test.error(format('SELECT session_assertion_id(%L, %L, NULL)', :'a_session_id', 'alice'));
CALL test.error(format('SELECT session_assertion(%L, NULL)', :'a_session_token'));
CALL test.error(format('SELECT session_assertion(%L, %L)', :'a_session_token', ''));
CALL test.error(format('SELECT session_assertion(%L, repeat(%L, 513))', :'a_session_token', 'x'));

SELECT session_grant('regress_session_app', 'app');
SELECT coalesce(current_setting('test.one_in', true), '1') AS one_in \gset

-- Nobody is trusted unless it was said, not even this database.
BEGIN;
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
SELECT session_user_id();
ROLLBACK;
SELECT session_trust(session_assertion_keys()) > 0 AS trusted;
SELECT count(*) = jsonb_array_length(session_assertion_keys() -> 'keys') AS all_keys,
	bool_and(octet_length(public_key) = 32) AS bytes FROM session_issuers;
SET ROLE regress_session_app;
BEGIN;
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
SELECT session_user_id(), session_tenant_id(), session_actor_id(), session_id() = :'a_session_id' AS id;
-- one that fails leaves nobody
SELECT session_bind(:'z');	-- for another audience
SELECT session_user_id(), session_tenant_id(), session_actor_id(), session_id();
SELECT session_bind(session_assertion(:'z_session_token', session_audience()));
SELECT session_user_id(), session_tenant_id(), session_actor_id(), session_id() = :'z_session_id' AS id;
SELECT session_bind(session_assertion(:'i_session_token', session_audience()));
SELECT session_user_id(), session_tenant_id(), session_actor_id();
COMMIT;
SELECT session_user_id();

-- No character can be another one, none be missing or more.
SELECT count(*) > 300 / :one_in AS tried,
	count(*) FILTER (WHERE session_bind(overlay(:'a' PLACING CASE substr(:'a', i, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM i))) AS bound
FROM generate_series(1, length(:'a'), :one_in) AS i;
SELECT count(*) FILTER (WHERE session_bind(overlay(:'a' PLACING '' FROM i FOR 1))) AS shorter,
	count(*) FILTER (WHERE session_bind(overlay(:'a' PLACING '.' FROM i FOR 1))
		AND substr(:'a', i, 1) <> '.') AS dotted,
	count(*) FILTER (WHERE session_bind(left(:'a', i - 1))) AS cut
FROM generate_series(1, length(:'a'), :one_in) AS i;
SELECT wrong, session_bind(wrong) FROM (VALUES (''), ('.'), ('..'), ('...'), (repeat('.', 100)), (repeat('.', 40000)),
	('e30.e30.' || repeat('A', 86)), (repeat('A', 88) || '.')) AS w(wrong) WHERE session_bind(wrong);
SELECT session_bind(:'a' || '='), session_bind(:'a' || '.'), session_bind('.' || :'a'), session_bind(:'a' || E'\n'),
	session_bind(' ' || :'a'), session_bind(split_part(:'a', '.', 1) || '..' || split_part(:'a', '.', 3)),
	session_bind(split_part(:'a', '.', 1) || '.' || split_part(:'i', '.', 2) || '.' || split_part(:'a', '.', 3));
-- an unsigned one, and one "signed" by a MAC with the public key
SELECT session_bind(translate(encode(convert_to(header, 'UTF8'), 'base64'), E'+/=\n', '-_') || '.' || split_part(:'a', '.', 2) || '.' || s)
FROM (VALUES ('{"alg":"none","typ":"session+jwt"}', ''), ('{"alg":"none","typ":"session+jwt"}', split_part(:'a', '.', 3)),
	('{"alg":"HS256","typ":"session+jwt"}', repeat('A', 43))) AS f(header, s);

-- Who may do what
SELECT session_audience() IS NOT NULL AS audience, session_assertion_keys() IS NOT NULL AS keys;
CALL test.error('SELECT session_trust(''{}'')');
CALL test.error('SELECT session_distrust(gen_random_uuid())');
CALL test.error('SELECT * FROM session_issuers');
RESET ROLE;

-- Trust is of keys: those that are not in the set are trusted no longer.
CALL test.error('SELECT session_trust(''[]'')');
CALL test.error('SELECT session_trust(''{"keys": []}'')');
CALL test.error('SELECT session_trust(''{"issuer": "x", "keys": []}'')');
CALL test.error('SELECT session_trust(session_assertion_keys() - ''keys'')');
CALL test.error('SELECT session_trust(session_assertion_keys() || ''{"keys": ["x"]}'')');
CALL test.error('SELECT session_trust(session_assertion_keys() || ''{"keys": [{"kty": "OKP", "crv": "X25519", "x": "AA"}]}'')');
CALL test.error('SELECT session_trust(jsonb_set(session_assertion_keys(), ''{keys,0,x}'', ''"AAAA"''))');
SELECT count(*) > 0 AS kept FROM session_issuers;	-- and all or nothing
BEGIN READ ONLY;
CALL test.error('SELECT session_trust(session_assertion_keys())');
CALL test.error('SELECT session_distrust(gen_random_uuid())');
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
COMMIT;
SELECT session_trust(session_assertion_keys() || '{"keys": []}');
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
SELECT session_trust(session_assertion_keys()) > 0 AS trusted;
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
SELECT session_distrust(gen_random_uuid());
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
SELECT session_distrust(session_audience()::uuid) > 0 AS distrusted;
SELECT session_bind(session_assertion(:'a_session_token', session_audience()));
SELECT count(*) FROM session_issuers;
-- on record, and durable whatever synchronous_commit says
SELECT event, detail ->> 'issuer' = session_audience() AS issuer, (detail ->> 'keys')::int > 0 AS keys
FROM session_events WHERE event LIKE 'issuer%' ORDER BY event_id;
SET synchronous_commit = off;
SELECT session_trust(session_assertion_keys()) > 0 AS trusted;
BEGIN;
SELECT session_distrust(session_audience()::uuid) > 0 AS distrusted;
SELECT pg_current_wal_insert_lsn() AS written \gset
COMMIT;
SELECT pg_current_wal_flush_lsn() >= :'written'::pg_lsn AS durable;
RESET synchronous_commit;
-- what was trusted after the transaction's snapshot cannot be missed
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL test.error('SELECT session_trust(session_assertion_keys())');
CALL test.error('SELECT session_distrust(session_audience()::uuid)');
COMMIT;
-- nor can a policy or a trigger keep it
SELECT session_trust(session_assertion_keys()) > 0 AS trusted;
CREATE FUNCTION test.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON session_issuers FOR EACH ROW EXECUTE FUNCTION test.keep();
CALL test.error('SELECT session_distrust(session_audience()::uuid)');
DROP TRIGGER keep ON session_issuers;
DROP FUNCTION test.keep;
SELECT session_distrust(session_audience()::uuid) > 0 AS distrusted;
-- A session's last second: what is made can be bound.
SELECT session_token FROM session_create('last', ttl => '2 s') \gset l_
SELECT session_trust(session_assertion_keys()) > 0 AS trusted;
CREATE FUNCTION test.to_the_end(token text) RETURNS TABLE (bound bigint, refused bigint) LANGUAGE plpgsql AS $$
DECLARE
	assertion text;
	ends timestamptz := clock_timestamp() + interval '10 s';
BEGIN
	bound := 0;
	refused := 0;
	LOOP
		assertion := session_assertion(token, session_audience());
		EXIT WHEN assertion IS NULL OR clock_timestamp() > ends;
		IF session_bind(assertion) THEN bound := bound + 1; ELSE refused := refused + 1; END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN NEXT;
END
$$;
SELECT bound > 0 AS bound, refused <= 1 AS no_more_than_one_that_was_slow FROM test.to_the_end(:'l_session_token');
DROP FUNCTION test.to_the_end;
SELECT session_distrust(session_audience()::uuid) > 0 AS distrusted;
-- by id it is no use of the session, and ends when that will have idled out
SELECT session_id FROM session_create('idler', idle_timeout => '5 s') \gset i_
SELECT (c ->> 'exp')::int - (c ->> 'iat')::int BETWEEN 1 AND 6 AS short
FROM test.part(session_assertion_id(:'i_session_id', 'idler', 'billing'), 2) AS c;
DROP FUNCTION test.part;
