--
-- session_get: the live session of a token, or no row
--
SET TimeZone = 'UTC';
SELECT * FROM session_create('alice', '{"n": 1}', ip => '192.0.2.1', user_agent => 'one') \gset a_
SELECT session_token_digest(:'a_session_token') AS a_digest \gset

-- Token and digest form alike
SELECT user_id, data, version, auth, cacheable FROM session_get(:'a_session_token');
SELECT user_id, data, version, auth, cacheable FROM session_get(:'a_digest');

-- Whatever is not a live session's token gives the same: nothing.
SELECT count(*) FROM session_get(NULL);
SELECT what, count(g.session_id)
FROM (VALUES
	('empty', ''),
	('prefix', 'sm1_'),
	('cut', left(:'a_session_token', 67)),
	('longer', :'a_session_token' || 'A'),
	('padded', :'a_session_token' || '='),
	('newline', :'a_session_token' || E'\n'),
	('leading space', ' ' || :'a_session_token'),
	('trailing space', :'a_session_token' || ' '),
	('upper case prefix', 'SM1_' || substr(:'a_session_token', 5)),
	('another version', 'sm2_' || substr(:'a_session_token', 5)),
	('plain base64', 'sm1_' || repeat('+/', 32)),
	('secret as digest', 'sd1_' || substr(:'a_session_token', 5)),
	('digest as secret', 'sm1_' || substr(:'a_digest', 5)),
	('session id', :'a_session_id'),
	('not ASCII', 'sm1_' || repeat('ü', 32)),
	('megabyte', repeat('sm1_', 262144)),
	('unknown', 'sm1_' || repeat('A', 64)),
	('unknown digest', 'sd1_' || repeat('A', 64))) AS t(what, token)
	LEFT JOIN LATERAL session_get(token) AS g ON true
GROUP BY what ORDER BY what COLLATE "C";
SELECT count(g.session_id) AS with_one_character_changed
FROM generate_series(1, 68) AS pos, session_get(test.change_char(:'a_session_token', pos)) AS g;
SELECT count(g.session_id) AS with_one_character_changed
FROM generate_series(1, 68) AS pos, session_get(test.change_char(:'a_digest', pos)) AS g;

-- A dead session is no different, however it died.
SELECT session_id, session_token FROM session_create('expired') \gset e_
UPDATE user_sessions SET expires_at = clock_timestamp() WHERE session_id = :'e_session_id';
SELECT * FROM session_get(:'e_session_token');
SELECT session_token FROM session_create('short', ttl => '1 microsecond') \gset e_
SELECT * FROM session_get(:'e_session_token');
SELECT session_token FROM session_create('revoked') \gset r_
SELECT session_invalidate(:'r_session_token');
SELECT * FROM session_get(:'r_session_token');
SELECT * FROM session_get(session_token_digest(:'r_session_token'));

-- The idle timeout counts from the last use, and is read when it is asked.
-- (The times are moved in the table, so the session must not be in shared
-- memory, where a use may be recorded.)
SELECT session_id, session_token FROM session_create('idle') \gset i_
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '10 min' WHERE session_id = :'i_session_id';
SET session_manager.idle_timeout = '10min';
SELECT * FROM session_get(:'i_session_token');
SET session_manager.idle_timeout = '11min';
SELECT user_id FROM session_get(:'i_session_token', touch => false);
SET session_manager.idle_timeout = '10min';
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '9 min' WHERE session_id = :'i_session_id';
SELECT user_id FROM session_get(:'i_session_token', touch => false);
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '10 min' WHERE session_id = :'i_session_id';
SELECT user_id FROM session_get(:'i_session_token', touch => false);
-- a use keeps it alive
SET session_manager.idle_timeout = '11min';
SELECT user_id FROM session_get(:'i_session_token');
SET session_manager.idle_timeout = '10min';
SELECT user_id FROM session_get(:'i_session_token');
RESET session_manager.idle_timeout;

-- In every place where a function can stand
SELECT count(*) FROM generate_series(1, 100) AS i, LATERAL session_get(:'a_session_token', touch => i > 0) AS g WHERE g.user_id = 'alice';
SELECT (session_get(:'a_session_token')).data ->> 'n' AS n;
SELECT EXISTS (SELECT FROM session_get(:'a_session_token')) AND NOT EXISTS (SELECT FROM session_get('x')) AS found;
BEGIN;
DECLARE c CURSOR FOR SELECT user_id FROM session_get(:'a_session_token');
FETCH 2 FROM c;
COMMIT;
CREATE FUNCTION test.owner_of(token text) RETURNS text
LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT user_id FROM public.session_get(token)); END $$;
SELECT test.owner_of(:'a_session_token'), test.owner_of('x');
PREPARE find(text) AS SELECT user_id, data FROM session_get($1);
EXECUTE find(:'a_session_token');
EXECUTE find(:'r_session_token');
EXECUTE find(NULL);
DEALLOCATE find;

-- The latest state, even where the transaction's snapshot is older
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM user_sessions WHERE user_id = 'alice';
SELECT data FROM session_update(:'a_session_token', '{"n": 2}');
SELECT data, version FROM session_get(:'a_session_token');
SELECT session_invalidate(:'a_session_token');
SELECT data FROM session_get(:'a_session_token');
ROLLBACK;
SELECT data, version FROM session_get(:'a_session_token');

-- A failed attempt is recorded at most once a second, without the token.
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
DELETE FROM session_events WHERE event = 'rejected';
SELECT clock_timestamp() AS began \gset
SELECT count(g.session_id)
FROM generate_series(1, 6) AS i, session_get(test.change_char(:'a_session_token', 62 + i), '192.0.2.66', 'evil') AS g;
SELECT count(*) AS recorded, count(*) BETWEEN 1 AND 1 + extract(epoch FROM clock_timestamp() - :'began') AS once_a_second
FROM session_events WHERE event = 'rejected' \gset
\echo :once_a_second
SELECT DISTINCT session_id = :'a_session_id' AS same_session, user_id, ip, user_agent, session_event_severity(event), detail - 'suppressed' AS detail
FROM session_events WHERE event = 'rejected';
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
SELECT count(*) FROM session_get('sm1_' || repeat('A', 64), '192.0.2.66', 'evil');
SELECT session_id = :'a_session_id' AS same_session, user_id, ip, user_agent, detail - 'suppressed' AS detail
FROM session_events WHERE event = 'rejected' ORDER BY event_id DESC LIMIT 1;
SELECT count(*) FROM session_get('malformed');		-- no event: it names no session
SELECT count(*) - :recorded AS more FROM session_events WHERE event = 'rejected';

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
