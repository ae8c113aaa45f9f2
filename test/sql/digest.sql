--
-- Tokens, digest forms and buckets, against second implementations
--

-- The digest form, recomputed with pgcrypto
CREATE FUNCTION test.digest_form(token text) RETURNS text
LANGUAGE sql AS $$
	SELECT 'sd1_' || test.base64url(substr(raw, 1, 16) ||
		digest(convert_to('session_manager token v1', 'UTF8') || raw, 'sha256'))
	FROM test.unbase64url(substr(token, 5)) AS raw;
$$;
CREATE TABLE test.token AS
SELECT user_id, c.*
FROM (SELECT 'user' || i FROM generate_series(1, 50) AS i) AS u(user_id),
	session_create(user_id) AS c;
SELECT count(*), count(DISTINCT session_token) AS tokens,
	bool_and(session_token ~ '^sm1_[A-Za-z0-9_-]{64}$') AS well_formed,
	bool_and(substr(test.unbase64url(substr(session_token, 5)), 1, 16) = uuid_send(session_id)) AS names_session,
	bool_and(session_token_digest(session_token) = test.digest_form(session_token)) AS digest_agrees
FROM test.token;
SELECT count(*) FROM test.token, session_get(test.digest_form(session_token)) AS g
WHERE g.session_id = token.session_id AND g.user_id = token.user_id;

-- What is stored is neither the secret nor the digest.
SELECT count(*) FROM test.token AS t JOIN user_sessions AS s USING (session_id)
WHERE position(substr(test.unbase64url(substr(session_token, 5)), 17) IN record_send(s)) > 0
   OR position(substr(test.unbase64url(substr(test.digest_form(session_token), 5)), 17) IN record_send(s)) > 0;

-- A fixed vector: bytes 00 to 2f
SELECT session_token_digest('sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v');
SELECT test.digest_form('sm1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v');

-- A digest form is its own; what is no token has none.
SELECT session_token_digest(session_token_digest(session_token)) = session_token_digest(session_token) AS same
FROM test.token LIMIT 1;
CALL test.error($$SELECT session_token_digest('sm1_')$$);
CALL test.error($$SELECT session_token_digest('')$$);
SELECT session_token_digest(NULL);

-- Session ids: UUID version 7 of the moment of creation
SELECT bool_and(session_id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-') AS version_7,
	bool_and(abs(extract(epoch FROM created_at) * 1000
		- ('x0000' || substr(replace(session_id::text, '-', ''), 1, 12))::bit(64)::bigint) <= 1) AS time_matches
FROM test.token;

-- Buckets, recomputed with SipHash-2-4 in SQL
CREATE FUNCTION test.add64(a bit(64), b bit(64)) RETURNS bit(64)
LANGUAGE sql IMMUTABLE AS $$
	SELECT ((high & 4294967295)::bit(32) || (low & 4294967295)::bit(32))::bit(64)
	FROM (SELECT substring(a FOR 32)::bigint + substring(b FOR 32)::bigint + (low >> 32) AS high, low
		FROM (SELECT substring(a FROM 33)::bigint + substring(b FROM 33)::bigint AS low) AS l) AS h;
$$;
CREATE FUNCTION test.rotl64(a bit(64), n integer) RETURNS bit(64)
LANGUAGE sql IMMUTABLE AS $$ SELECT (a << n) | (a >> (64 - n)); $$;
-- the little-endian number in 8 bytes from a position, missing bytes zero
CREATE FUNCTION test.le64(bytes bytea, pos integer) RETURNS bit(64)
LANGUAGE sql IMMUTABLE AS $$
	SELECT ('x' || string_agg(encode(CASE WHEN pos + i < octet_length(bytes)
		THEN substr(bytes, pos + i + 1, 1) ELSE '\x00' END, 'hex'), '' ORDER BY i DESC))::bit(64)
	FROM generate_series(0, 7) AS i;
$$;
CREATE FUNCTION test.siphash(key bytea, message bytea) RETURNS bit(64)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	v0 bit(64) := test.le64(key, 0) # X'736f6d6570736575';
	v1 bit(64) := test.le64(key, 8) # X'646f72616e646f6d';
	v2 bit(64) := test.le64(key, 0) # X'6c7967656e657261';
	v3 bit(64) := test.le64(key, 8) # X'7465646279746573';
	len integer := octet_length(message);
	m bit(64);
	rounds integer;
BEGIN
	FOR block IN 0..len / 8 + 1 LOOP
		rounds := 2;
		IF block <= len / 8 THEN
			m := test.le64(message, block * 8);
			IF block = len / 8 THEN
				m := m | ((len & 255)::bit(8) || repeat('0', 56)::bit(56))::bit(64);
			END IF;
			v3 := v3 # m;
		ELSE
			v2 := v2 # X'00000000000000ff';
			rounds := 4;
		END IF;
		FOR i IN 1..rounds LOOP
			v0 := test.add64(v0, v1); v1 := test.rotl64(v1, 13); v1 := v1 # v0; v0 := test.rotl64(v0, 32);
			v2 := test.add64(v2, v3); v3 := test.rotl64(v3, 16); v3 := v3 # v2;
			v0 := test.add64(v0, v3); v3 := test.rotl64(v3, 21); v3 := v3 # v0;
			v2 := test.add64(v2, v1); v1 := test.rotl64(v1, 17); v1 := v1 # v2; v2 := test.rotl64(v2, 32);
		END LOOP;
		IF block <= len / 8 THEN
			v0 := v0 # m;
		END IF;
	END LOOP;
	RETURN v0 # v1 # v2 # v3;
END
$$;
-- A server that discards its caches at every chance takes minutes for these
-- thousand expressions, none of which is the extension's.
SET debug_discard_caches = 0;
-- the vector that the SipHash paper gives: a129ca6149be45e5
SELECT test.siphash('\x000102030405060708090a0b0c0d0e0f', '\x000102030405060708090a0b0c0d0e')
	= X'a129ca6149be45e5' AS known_answer;
CREATE TABLE test.bucket AS
SELECT user_id, (substring(test.siphash('session_bucketv1', convert_to(user_id, 'UTF8')) FROM 49))::bit(16)::integer AS bucket
FROM (VALUES ('alice'), ('auth0|5f7c8ec7c33c6c004bbafe82'), (''), ('a'), ('1234567'), ('12345678'),
	('Grüße an Zoë'), ('東京ユーザー'), (repeat('x', 512))) AS u(user_id);
RESET debug_discard_caches;
SELECT left(user_id, 30) AS user_id, session_bucket(user_id) AS bucket,
	session_bucket(user_id) = bucket AS agrees
FROM test.bucket;
SELECT bool_and(session_bucket(session_id) = session_bucket(user_id)) AS same_bucket,
	bool_and(session_bucket(session_id) = get_byte(uuid_send(session_id), 14) * 256 + get_byte(uuid_send(session_id), 15)) AS last_16_bits
FROM test.token;
SELECT session_bucket(NULL::text), session_bucket(NULL::uuid);
SELECT session_bucket('00000000-0000-0000-0000-00000000ffff'::uuid);
SELECT bool_and(session_token_bucket(session_token) = session_bucket(session_id)) AS of_tokens,
	bool_and(session_token_bucket(session_token_digest(session_token)) = session_bucket(session_id)) AS of_digests
FROM generate_series(1, 20) AS i, session_create('user' || i);
SELECT token, session_token_bucket(token) FROM (VALUES (NULL), (''), ('x'), ('sm1_'), ('sm2_' || repeat('A', 64)),
	('sm1_' || repeat('A', 63)), ('sm1_' || repeat('A', 63) || '='), ('sm1_' || repeat('_', 64))) AS t(token);

SELECT sum(session_invalidate_all(user_id)) FROM test.token;
DROP TABLE test.token;
