--
-- session_manager.client_binding: networks of /24 and /48
--
LOAD 'session_manager';

-- What a session that logged in from one address gives to another
CREATE FUNCTION test.from_address(login inet, later inet)
RETURNS TABLE (let_in boolean, changed bigint, ip inet)
LANGUAGE plpgsql AS $$
DECLARE
	s record;
BEGIN
	SELECT * INTO s FROM public.session_create('binding', ip => login);
	SELECT count(*) = 1 INTO let_in FROM public.session_get(s.session_token, later);
	SELECT count(*) INTO changed FROM public.session_events WHERE session_id = s.session_id AND event = 'client_changed';
	SELECT u.ip INTO ip FROM public.user_sessions AS u WHERE session_id = s.session_id;
	RETURN NEXT;
END
$$;
CREATE TABLE test.pair (n serial, login inet, later inet);
INSERT INTO test.pair (login, later) VALUES
	('192.0.2.1', '192.0.2.1'),
	('192.0.2.1', '192.0.2.254'),
	('192.0.2.1', '192.0.3.1'),
	('192.0.2.1', '10.0.2.1'),
	('192.0.2.1', NULL),
	(NULL, '192.0.2.1'),
	(NULL, NULL),
	('2001:db8:1::1', '2001:db8:1:ffff:ffff:ffff:ffff:ffff'),
	('2001:db8:1::1', '2001:db8:2::1'),
	('192.0.2.1', '2001:db8:1::1'),
	('2001:db8:1::1', '192.0.2.1'),
	('::ffff:192.0.2.1', '192.0.2.99'),
	('192.0.2.1', '::ffff:192.0.2.99'),
	('::ffff:192.0.2.1', '::ffff:192.0.2.99'),
	('::ffff:192.0.2.1', '::ffff:192.0.3.1'),
	('::ffff:192.0.2.1', '198.51.100.1'),
	('::1', '::1'),
	('192.0.2.1/24', '192.0.2.77/32');

SHOW session_manager.client_binding;
SELECT n, login, later, f.* FROM test.pair, test.from_address(login, later) AS f ORDER BY n;
SET session_manager.client_binding = log;
SELECT n, login, later, f.* FROM test.pair, test.from_address(login, later) AS f ORDER BY n;
SET session_manager.client_binding = strict;	-- events are limited to one a second
SELECT n, login, later, let_in, ip FROM test.pair, test.from_address(login, later) AS f ORDER BY n;

-- The event names the address that was refused.
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
TRUNCATE session_events;
SELECT * FROM test.from_address('192.0.2.1', '198.51.100.7');
SELECT event, session_event_severity(event), user_id, ip, detail - 'suppressed' AS detail FROM session_events WHERE event = 'client_changed';

-- Strict: the session is not ended, and its own network is let in again.
SELECT session_id, session_token FROM session_create('alice', '{"n": 1}', ip => '192.0.2.1') \gset a_
SELECT count(*) FROM session_get(:'a_session_token', '198.51.100.7');
SELECT data FROM session_get(:'a_session_token', '192.0.2.2');
SELECT status FROM session_refresh(:'a_session_token', ip => '198.51.100.7');
SELECT status FROM session_refresh(:'a_session_token', rotate => true, ip => '198.51.100.7');
SELECT status FROM session_refresh(:'a_session_token');
SELECT status FROM session_refresh(:'a_session_token', ip => '192.0.2.3');
SELECT count(*) FROM session_get(:'a_session_token', '192.0.2.1');
-- functions that are not told an address do not look at it
SELECT version FROM session_update(:'a_session_token', '{"n": 2}');
SELECT session_bind(:'a_session_token');
SELECT session_status(:'a_session_token');
SELECT session_invalidate(:'a_session_token');

-- Log: the known address moves along, so that a change is told once.
SET session_manager.client_binding = log;
SELECT session_id, session_token FROM session_create('bob', ip => '192.0.2.1') \gset b_
SELECT count(*) FROM generate_series(1, 3), session_get(:'b_session_token', '198.51.100.7');
SELECT event FROM test.events(:'b_session_id');
SELECT ip FROM user_sessions WHERE session_id = :'b_session_id';
-- in a read-only transaction it lets the session in; if there is a worker, that
-- tells of it, at a time of its own
BEGIN READ ONLY;
SELECT count(*) FROM session_get(:'b_session_token', '192.0.2.1');
ROLLBACK;
SELECT DISTINCT event FROM test.events(:'b_session_id') ORDER BY event;
SET session_manager.client_binding = strict;
-- another session: the address of that one may have moved by now
SELECT session_token FROM session_create('reader', ip => '198.51.100.1') \gset c_
BEGIN READ ONLY;
SELECT count(*) FROM session_get(:'c_session_token', '192.0.2.1');
SELECT count(*) FROM session_get(:'c_session_token', '198.51.100.1');
ROLLBACK;
RESET session_manager.client_binding;

-- An IPv4 address that is mapped into IPv6 is that address, for whoever looks.
SELECT session_id, session_token FROM session_create('mapped', ip => '::ffff:192.0.2.7') \gset m_
SELECT ip, family(ip), masklen(ip) FROM session_list('mapped');
SELECT status FROM session_refresh(:'m_session_token', ip => '::FFFF:203.0.113.11');
SELECT event, ip FROM session_history(user_id => 'mapped') ORDER BY event_id;
-- a network of such addresses, and one that is wider than all of them
SELECT count(*) FROM unnest('{::ffff:192.0.2.0/120, ::ffff:192.0.2.1/90}'::inet[]) AS n, session_create('networks', ip => n);
SELECT ip FROM session_list('networks') ORDER BY ip;

DROP TABLE test.pair;
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
