--
-- session_list, session_status, session_active_count: what there is
--
SET TimeZone = 'UTC';
SELECT * FROM test.login('alice', 'd1') \gset d1_
SELECT * FROM test.login('alice', 'd2', 'acme') \gset d2_
SELECT * FROM test.login('alice', 'd3') \gset d3_
SELECT * FROM test.login('alice', 'd4') \gset d4_
SELECT * FROM test.login('alice', 'd5') \gset d5_
SELECT * FROM test.login('alice2', 'd6') \gset d6_

-- Newest first; the current one is marked; never a token, never data
SELECT user_agent, tenant_id, is_current, ip, auth, ended_at, ended_reason,
	created_at <= last_seen_at AND last_seen_at < expires_at AND expires_at < absolute_expires_at AS times
FROM session_list('alice', :'d3_session_token');
SELECT user_agent, is_current FROM session_list('alice', session_token_digest(:'d5_session_token'), max_rows => 2);
SELECT count(*) FILTER (WHERE is_current) FROM session_list('alice', :'d6_session_token');
SELECT count(*) FILTER (WHERE is_current) FROM session_list('alice', test.change_char(:'d3_session_token', 68));
SELECT count(*) FILTER (WHERE is_current) FROM session_list('alice', 'x');
SELECT count(*) FROM session_list('alice', :'d3_session_token') AS l WHERE l::text ~ 'secret|s[md]1_';
SELECT count(*) FROM session_list('alice') AS l JOIN user_sessions USING (session_id) WHERE user_id <> 'alice';

-- A page at a time
SELECT user_agent, session_id = :'d4_session_id' AS d4 FROM session_list('alice', max_rows => 2);
SELECT user_agent FROM session_list('alice', after => :'d4_session_id', max_rows => 2);
SELECT user_agent FROM session_list('alice', after => :'d2_session_id', max_rows => 2);
SELECT user_agent FROM session_list('alice', after => :'d1_session_id', max_rows => 2);
SELECT user_agent FROM session_list('alice', after => 'ffffffff-ffff-ffff-ffff-ffffffffffff', max_rows => 1);
CALL test.error($$SELECT session_list('alice', max_rows => NULL)$$);
CALL test.error($$SELECT session_list('alice', max_rows => 0)$$);
CALL test.error($$SELECT session_list('alice', max_rows => -1)$$);
-- a page that starts after a session that has ended since
SELECT session_invalidate_id(:'d4_session_id', reason => 'lost phone');
SELECT user_agent FROM session_list('alice', after => :'d4_session_id', max_rows => 2);

-- Ended ones only when asked for, as long as their rows are kept
UPDATE user_sessions SET expires_at = created_at + interval '1 microsecond' WHERE session_id = :'d3_session_id';
UPDATE user_sessions SET last_seen_at = clock_timestamp() - interval '1 hour' WHERE session_id = :'d1_session_id';
SET session_manager.idle_timeout = '30min';
SELECT user_agent FROM session_list('alice', :'d3_session_token');
SELECT user_agent, is_current, ended_at IS NOT NULL AS ended, ended_reason
FROM session_list('alice', :'d3_session_token', include_ended => true);
SELECT session_status(:'d1_session_token') AS d1, session_status(:'d2_session_token') AS d2, session_status(:'d3_session_token') AS d3,
	session_status(:'d4_session_token') AS d4, session_status(session_token_digest(:'d5_session_token')) AS d5;
SELECT session_active_count(), session_active_count('acme') AS acme, session_active_count(user_id => 'alice') AS alice,
	session_active_count('acme', 'alice2') AS none, session_active_count('none') AS nobody;
SELECT ended_at = s.expires_at AS at_expiry FROM session_list('alice', include_ended => true) AS l
	JOIN user_sessions AS s USING (session_id) WHERE ended_reason = 'expired';
SELECT ended_at - s.last_seen_at AS after FROM session_list('alice', include_ended => true) AS l
	JOIN user_sessions AS s USING (session_id) WHERE ended_reason = 'idle';
SELECT ended_at = s.revoked_at AS at_revocation FROM session_list('alice', include_ended => true) AS l
	JOIN user_sessions AS s USING (session_id) WHERE ended_reason = 'lost phone';
RESET session_manager.idle_timeout;
SELECT user_agent FROM session_list('alice');

-- Status of the rest
SELECT session_status(NULL), session_status(''), session_status('sm1_' || repeat('A', 64)) AS unknown,
	session_status(test.change_char(:'d5_session_token', 68)) AS wrong_secret;
SELECT session_token FROM session_refresh(:'d5_session_token', rotate => true) \gset d5n_
SELECT session_status(:'d5_session_token') AS previous, session_status(:'d5n_session_token') AS current;

-- Nobody's
SELECT * FROM session_list('nobody');
CALL test.error('SELECT session_list(NULL)');
CALL test.error($$SELECT session_list('')$$);

-- Newest first, also of those that were made within one millisecond
SELECT count(*) FROM generate_series(1, 100) AS n, session_create('quick', jsonb_build_object('n', n));
SELECT bool_and(created_at < newer) AS newest_first
FROM (SELECT created_at, lag(created_at) OVER (ORDER BY ordinality) AS newer FROM session_list('quick') WITH ORDINALITY) AS s;

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
