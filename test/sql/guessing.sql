--
-- token_guessing: many different wrong tokens from one network, of which no
-- other test may want a refused token on record
--
LOAD 'session_manager';
TRUNCATE session_events;

-- A token that belongs to no session
CREATE FUNCTION test.wrong(i int) RETURNS text
LANGUAGE sql AS $$ SELECT 'sm1_' || translate(encode(sha256(i::text::bytea) || substr(sha256('guess'), 1, 16), 'base64'), E'+/\n', '-_') $$;
SELECT length(test.wrong(1));
-- How a number of wrong tokens are refused, and what they leave.  Thousands: a
-- server that discards its caches at every chance would take too long.
CREATE FUNCTION test.guess(ip inet, first int, last int) RETURNS bigint
LANGUAGE sql SET debug_discard_caches = 0 AS $$ SELECT count(g.session_id) FROM generate_series(first, last) AS i, public.session_get(test.wrong(i), ip, 'guesser') AS g $$;

-- Few, or the same one again and again, or without an address: nothing
SELECT test.guess('10.10.0.1', 1, 60);
SELECT sum(test.guess('10.10.0.1', 1, 60)) FROM generate_series(1, 20);
SELECT count(g.session_id) FROM generate_series(1, 500) AS i, session_get(test.wrong(i)) AS g;
SELECT event FROM session_events WHERE event <> 'rejected';
-- many, from one network: one event, and then silence
SELECT test.guess('10.10.0.2', 61, 200);
SELECT event, session_event_severity(event), session_id, user_id, tenant_id, ip, user_agent,
	detail ->> 'network' AS network, (detail ->> 'count')::int > 1000 AS counted, (SELECT count(*) FROM jsonb_object_keys(detail)) AS keys
FROM session_events WHERE event = 'token_guessing';
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
TRUNCATE session_events;
SELECT test.guess('10.10.0.3', 200, 2000);
SELECT count(*) FROM session_events;
-- from other networks
SELECT test.guess('10.11.0.1', 1, 1000);
SELECT sum(test.guess(('fd00:1:1::' || i)::inet, i * 50, i * 50 + 49)) FROM generate_series(1, 9) AS i;
SELECT sum(test.guess(('::ffff:10.12.0.' || i)::inet, i * 50, i * 50 + 49)) FROM generate_series(1, 9) AS i;
SELECT detail ->> 'network' AS network FROM session_events WHERE event = 'token_guessing' ORDER BY event_id;

-- Guesses at a session's secret count, and keep their own events.
SELECT session_id, session_token FROM session_create('ann', ip => '10.0.0.1') \gset a_
TRUNCATE session_events;
SELECT count(g.session_id) FROM generate_series(1, 1000) AS i,
	session_get(overlay(:'a_session_token' PLACING substr(test.wrong(i), 30, 30) FROM 38), '10.1.0.1', 'guesser') AS g;
SELECT event, user_id, detail ->> 'cause' AS cause, count(*) > 0 AS recorded, count(*) < 500 AS limited FROM session_events GROUP BY 1, 2, 3 ORDER BY 1;
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
TRUNCATE session_events;
SELECT count(*) FROM session_get(overlay(:'a_session_token' PLACING substr(test.wrong(1001), 30, 30) FROM 38), '10.1.0.1', 'guesser');
SELECT event, user_id, detail ->> 'cause' AS cause FROM session_events ORDER BY event;
-- a replaced token does not count, and is on record in the midst of guesses
SET session_manager.rotation_grace = 0;
SELECT session_token FROM session_refresh(:'a_session_token', rotate => true) \gset b_
SELECT count(*) FROM session_get(:'b_session_token');
TRUNCATE session_events;
SELECT test.guess('10.1.0.1', 1, 100);
SELECT count(*) FROM session_get(:'a_session_token', '10.1.0.1', 'thief');
SELECT count(g.session_id) FROM generate_series(1, 1000) AS i, session_get(:'a_session_token', ('10.2.0.' || i % 100)::inet, 'thief') AS g;
SELECT DISTINCT event, user_id, detail ->> 'cause' AS cause FROM session_events;
RESET session_manager.rotation_grace;

-- The guesser's good token works.
SELECT user_id FROM session_get(:'b_session_token', '10.1.0.1');

-- Off
SET session_manager.guessing_threshold = 0;
TRUNCATE session_events;
SELECT test.guess('10.3.0.1', 1, 1000);
SELECT event FROM session_events WHERE event <> 'rejected';
-- and as soon as there are two; of three networks, as two tokens look like one
-- in one of a thousand
SET session_manager.guessing_threshold = 2;
SELECT test.guess(network, 1, 1) FROM unnest('{10.4.0.1,10.40.0.1,10.41.0.1}'::inet[]) AS network;
SELECT event FROM session_events WHERE event <> 'rejected';
SELECT test.guess(network, n, n) FROM unnest('{10.4.0.1,10.40.0.1,10.41.0.1}'::inet[]) WITH ORDINALITY AS t(network, o), LATERAL (SELECT 1 + o::int) AS s(n);
SELECT DISTINCT event, detail - 'network' AS detail FROM session_events WHERE event <> 'rejected';
RESET session_manager.guessing_threshold;
TRUNCATE session_events;

-- Any number of networks; fewer where test.one_in says that the server is very slow
SELECT coalesce(current_setting('test.one_in', true), '1') AS one_in \gset
SELECT sum(test.guess(('fd00:2:' || to_hex(i) || '::1')::inet, i, i)) FROM generate_series(1000, 21000, :one_in) AS i;
SELECT event FROM session_events WHERE event <> 'rejected';
SELECT test.guess('10.5.0.1', 1, 200);
SELECT detail ->> 'network' AS network FROM session_events WHERE event = 'token_guessing' ORDER BY event_id DESC LIMIT 1;

DROP FUNCTION test.guess, test.wrong;
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
