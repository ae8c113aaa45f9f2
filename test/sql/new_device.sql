--
-- new_device: a login from a network and a device that the user has not been
-- seen with
--
SET TimeZone = 'UTC';
LOAD 'session_manager';
TRUNCATE session_events;
\set firefox '''Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0'''
\set firefox_updated '''Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0'''
\set chrome '''Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36'''
\set safari '''Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1'''

-- The first login of a user is compared with nothing.
SELECT new_device FROM session_create('ann', ip => '192.0.2.1', user_agent => :firefox);
SELECT new_device FROM session_create('ann', ip => '192.0.2.1', user_agent => :firefox);
-- another network or another device alone, an update of the browser
SELECT new_device FROM session_create('ann', ip => '198.51.100.1', user_agent => :firefox_updated);
SELECT new_device FROM session_create('ann', ip => '192.0.2.200', user_agent => :chrome);
-- both
SELECT session_id, new_device FROM session_create('ann', ip => '203.0.113.7', user_agent => :safari, tenant_id => 'acme') \gset n_
SELECT :'n_new_device' AS new_device;
SELECT event, session_event_severity(event), session_id = :'n_session_id' AS same_session, user_id, tenant_id, ip, user_agent, detail
FROM session_events WHERE event = 'new_device';
SELECT event FROM test.events(:'n_session_id');
-- after which it is known, as others' devices are not
SELECT new_device FROM session_create('ann', ip => '203.0.113.8', user_agent => :safari);
SELECT new_device FROM session_create('bea', ip => '192.0.2.1', user_agent => 'curl/8.5');
SELECT new_device FROM session_create('bea', ip => '203.0.113.8', user_agent => :safari);

-- Networks are those of client_binding.
SELECT ip, new_device FROM unnest('{2001:db8:1::1, 2001:db8:1:ffff::1, 2001:db8:2::1, ::ffff:10.0.0.1, 10.0.0.2, ::ffff:10.0.1.1}'::inet[])
	WITH ORDINALITY AS t(ip, n), session_create('nets', ip => ip, user_agent => 'agent' || chr(96 + n::int)) ORDER BY n;

-- What is not given is a network, or a device, of its own.
SELECT new_device FROM session_create('cat');
SELECT new_device FROM session_create('cat', user_agent => :firefox);	-- no address again
SELECT new_device FROM session_create('cat', ip => '192.0.2.1');		-- no user agent again
SELECT new_device FROM session_create('cat', ip => '192.0.2.1', user_agent => '');
SELECT new_device FROM session_create('cat', ip => '198.51.100.1', user_agent => '');
SELECT new_device FROM session_create('dan', ip => '192.0.2.1', user_agent => :firefox);
SELECT new_device FROM session_create('dan', ip => '198.51.100.1');		-- who leaves the user agent out
SELECT new_device FROM session_create('eve', user_agent => :firefox);
SELECT new_device FROM session_create('eve', user_agent => :chrome);
SELECT user_id, detail FROM session_events WHERE event = 'new_device' AND user_id IN ('cat', 'dan', 'eve') ORDER BY user_id;

-- What a user agent may not smuggle into a message to the user
SELECT new_device FROM session_create('fay', ip => '192.0.2.1', user_agent => 'one');
SELECT new_device FROM session_create('fay', ip => '10.1.1.1', user_agent => 'evil.example/login <b>Your password has expired</b>');
SELECT new_device FROM session_create('fay', ip => '10.1.2.1', user_agent => repeat('x', 600));
SELECT new_device FROM session_create('fay', ip => '10.1.3.1', user_agent => repeat('ü', 300));
SELECT new_device FROM session_create('fay', ip => '10.1.4.1', user_agent => E'\x01\x7f');
SELECT new_device FROM session_create('fay', ip => '10.1.5.1', user_agent => repeat('Firefox ', 64));
SELECT detail FROM session_events WHERE event = 'new_device' AND user_id = 'fay' ORDER BY event_id;

-- When the sessions are gone, the events remember.
SELECT session_invalidate_all('ann');
DELETE FROM user_sessions WHERE user_id = 'ann';
SELECT new_device FROM session_create('ann', ip => '203.0.113.99', user_agent => 'wget/1');
DELETE FROM user_sessions WHERE user_id = 'ann';
SELECT new_device FROM session_create('ann', ip => '10.2.0.1', user_agent => :firefox);
DELETE FROM user_sessions WHERE user_id = 'ann';
SELECT new_device FROM session_create('ann', ip => '10.3.0.1', user_agent => 'lynx/2');
-- a refresh from elsewhere, too; but not a guess, nor a use that was refused
SELECT session_id, session_token FROM session_create('gil', ip => '192.0.2.1', user_agent => 'one') \gset g_
SELECT status FROM session_refresh(:'g_session_token', ip => '10.4.0.1', user_agent => 'two');
SELECT count(*) FROM session_get(test.change_char(:'g_session_token', 66), '10.5.0.1', 'guess');
SET session_manager.client_binding = strict;
SELECT count(*) FROM session_get(:'g_session_token', '10.6.0.1', 'thief');
RESET session_manager.client_binding;
SELECT event, ip FROM session_events WHERE user_id = 'gil' ORDER BY event_id;
DELETE FROM user_sessions WHERE user_id = 'gil';
SELECT new_device FROM session_create('gil', ip => '10.4.0.2', user_agent => 'three');
DELETE FROM user_sessions WHERE user_id = 'gil';
SELECT new_device FROM session_create('gil', ip => '10.5.0.1', user_agent => 'guess');
DELETE FROM user_sessions WHERE user_id = 'gil';
SELECT new_device FROM session_create('gil', ip => '10.6.0.1', user_agent => 'thief');
-- nor what is older than event_retention, unless a session is still there
UPDATE session_events SET at = at - interval '91 days' WHERE user_id = 'bea';
SELECT new_device FROM session_create('bea', ip => '203.0.113.8', user_agent => 'x');
DELETE FROM user_sessions WHERE user_id = 'bea';
UPDATE session_events SET at = at - interval '91 days' WHERE user_id = 'bea' AND ip = '192.0.2.1';
SELECT new_device FROM session_create('bea', ip => '192.0.2.1', user_agent => 'curl/9');
DELETE FROM user_sessions WHERE user_id = 'bea';
DELETE FROM session_events WHERE user_id = 'bea' AND at > now() - interval '90 days';
SET session_manager.event_retention = 0;	-- for ever
SELECT new_device FROM session_create('bea', ip => '192.0.2.1', user_agent => 'curl/9');
RESET session_manager.event_retention;

-- With a limit the rows that are counted are those that are compared.
SET session_manager.max_sessions_per_user = 2;
SELECT new_device FROM session_create('hal', ip => '192.0.2.1', user_agent => 'one');
SELECT new_device FROM session_create('hal', ip => '192.0.2.1', user_agent => 'two');
SELECT new_device FROM session_create('hal', ip => '198.51.100.1', user_agent => 'three');
SELECT new_device FROM session_create('hal', ip => '10.7.0.1', user_agent => 'one');
SELECT event FROM session_events WHERE user_id = 'hal' ORDER BY event_id;
RESET session_manager.max_sessions_per_user;

-- Of no consequence: a switch of tenants, a login that rolls back
SELECT session_token FROM session_create('ivy', ip => '192.0.2.1', user_agent => 'one') \gset i_
SELECT status FROM session_switch_tenant(:'i_session_token', 'acme');
BEGIN;
SELECT new_device FROM session_create('ivy', ip => '198.51.100.1', user_agent => 'two');
SELECT new_device FROM session_create('ivy', ip => '198.51.100.1', user_agent => 'two');
ROLLBACK;
SELECT event FROM session_events WHERE user_id = 'ivy' ORDER BY event_id;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT new_device FROM session_create('ivy', ip => '198.51.100.1', user_agent => 'two');
-- (the keys are read anew where no cache keeps them)
SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND pid = pg_backend_pid()
	AND relation <> ALL ('{session_keys, session_installation}'::regclass[]);
COMMIT;

-- Who acts as the user does so from a device of their own.
SELECT session_token FROM session_create('staff', ip => '10.8.0.1', user_agent => 'office') \gset s_
SELECT new_device FROM session_create('kim', ip => '192.0.2.1', user_agent => 'one');
SELECT new_device FROM session_create('kim', ip => '10.8.0.1', user_agent => 'office', actor_token => :'s_session_token');
BEGIN;
SELECT new_device FROM session_create('kim', ip => '10.8.0.1', user_agent => 'office');
ROLLBACK;
BEGIN;
SET LOCAL session_manager.max_sessions_per_user = 9;
SELECT new_device FROM session_create('kim', ip => '10.8.0.1', user_agent => 'office');
ROLLBACK;
DELETE FROM user_sessions WHERE user_id = 'kim';
SELECT new_device FROM session_create('kim', ip => '10.8.0.1', user_agent => 'office');
-- where nobody else has been, the user is seen for the first time
SELECT new_device FROM session_create('lea', ip => '10.8.0.1', user_agent => 'office', actor_token => :'s_session_token');
SELECT new_device FROM session_create('lea', ip => '192.0.2.1', user_agent => 'one');

-- A partition with its columns in another order, and the owner's; one without
-- the index, which is passed over
SELECT session_erase('ivy');
CREATE TABLE test.later (detail jsonb, ip inet, note text, user_agent text, at timestamptz NOT NULL, gone int,
	session_id uuid, tenant_id text COLLATE "C", event text NOT NULL, user_id text COLLATE "C", event_id bigint NOT NULL);
ALTER TABLE test.later DROP COLUMN gone, DROP COLUMN note;
CREATE INDEX ON test.later (user_id, at) WHERE ip IS NULL;
CREATE INDEX ON test.later (user_id, at DESC);
CREATE INDEX ON test.later (user_id text_pattern_ops, at);
INSERT INTO test.later (event_id, at, user_id, event, ip, user_agent) VALUES
	(1, now() - interval '50 days', 'jon', 'created', '192.0.2.1', 'one'),
	(2, now() - interval '50 days', 'jon', 'created', NULL, NULL);
SELECT date_trunc('day', now() - interval '60 days') AS from, date_trunc('day', now() - interval '40 days') AS to \gset
ALTER TABLE session_events ATTACH PARTITION test.later FOR VALUES FROM (:'from') TO (:'to');
BEGIN;
SELECT new_device FROM session_create('jon', ip => '198.51.100.1', user_agent => 'two');
ROLLBACK;
CREATE INDEX ON test.later (user_id, at);
SELECT new_device FROM session_create('jon', ip => '198.51.100.1', user_agent => 'two');
DELETE FROM user_sessions WHERE user_id = 'jon';
SELECT new_device FROM session_create('jon', ip => '192.0.2.7', user_agent => 'three');
DROP TABLE test.later;

-- Off
SET session_manager.new_device_events = off;
SELECT new_device FROM session_create('ann', ip => '10.99.0.1', user_agent => 'unseen');
RESET session_manager.new_device_events;

SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
