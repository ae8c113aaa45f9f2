--
-- Keys: from none at all through rotation to the emergency stop
--
LOAD 'session_manager';
SELECT path AS key_file FROM test.key_file \gset

-- No key is configured: reading says "no session", making one says what to do.
\set ECHO none
SELECT test.configure('session_manager.key_file', '') \gexec
\set ECHO all
CALL test.error($$SELECT session_create('alice')$$);
SELECT * FROM session_get('sm1_' || repeat('A', 64));
SELECT session_status('sm1_' || repeat('A', 64));
SELECT * FROM session_keys();
CALL test.error('SELECT session_key_generate()');
CALL test.error('SELECT session_key_add(1)');
CALL test.error('SELECT session_key_activate(1)');
CALL test.error('SELECT session_key_retire(1)');
CALL test.error('SELECT session_key_revoke(1)');

-- A key file is named but does not exist yet.
\set ECHO none
SELECT test.configure('session_manager.key_file', :'key_file') \gexec
\set ECHO all
CALL test.error($$SELECT session_create('alice')$$);
CALL test.error('SELECT session_key_add(1)');
SELECT count(*) FROM session_installation;

-- The first key makes the file, private to the server, and is active.
SELECT session_key_generate();
SELECT test.shell('stat -c "%a %F" ' || :'key_file');
SELECT test.shell('grep -cE "^1:[0-9a-f]{64}$" ' || :'key_file');
SELECT key_id, state, available, created_at <= now() AS created, activated_at <= now() AS activated, retired_at, revoked_at
FROM session_keys();
SELECT count(*) FROM session_installation;
SELECT session_id, session_token FROM session_create('alice', '{"key": 1}') \gset a_
SELECT data FROM session_get(:'a_session_token');

-- The second is added only; key material is nowhere in the database.
SELECT session_key_generate();
SELECT key_id, state, available FROM session_keys() ORDER BY key_id;
SELECT count(*) AS keys_in_file,
	count(*) FILTER (WHERE position(m[1] IN (SELECT string_agg(k::text, ' ') FROM session_keys k)) > 0) AS leaked
FROM regexp_matches(pg_read_file(:'key_file'), ':([0-9a-f]{64})', 'g') AS m;

-- An operator's own line, appended by hand
SELECT test.shell(format('{ echo "# by hand"; echo; echo "7:%s"; } >> %s', repeat('0a', 32), :'key_file'));
SELECT session_key_add(7);
CALL test.error('SELECT session_key_add(7)');
CALL test.error('SELECT session_key_add(8)');
CALL test.error('SELECT session_key_add(0)');
CALL test.error('SELECT session_key_add(-1)');
SELECT session_key_add(NULL);
SELECT key_id, state, available FROM session_keys() ORDER BY key_id;
SELECT session_key_generate();		-- above every id in the file

-- Rotation: activate, re-seal, let verifiers age out, retire
CALL test.error('SELECT session_key_activate(99)');
SELECT session_key_activate(2);
SELECT session_key_activate(2);		-- is active already
SELECT key_id, state, available, activated_at IS NOT NULL AS activated
FROM session_keys() ORDER BY key_id;
SELECT session_id, session_token FROM session_create('alice', '{"key": 2}') \gset b_
SELECT session_id = :'b_session_id' AS second, key_id, verifier_key_id FROM user_sessions ORDER BY key_id;
SELECT data FROM session_get(:'a_session_token');
CALL test.error('SELECT session_key_retire(2)');	-- active
CALL test.error('SELECT session_key_retire(1)');	-- in use
CALL test.error('SELECT session_key_retire(99)');
SELECT session_reencrypt();
SELECT session_reencrypt();
SELECT key_id, verifier_key_id FROM user_sessions WHERE session_id = :'a_session_id';
SELECT data, version FROM session_get(:'a_session_token');
CALL test.error('SELECT session_key_retire(1)');	-- a verifier uses it
SELECT status FROM session_refresh(:'a_session_token');
SELECT key_id, verifier_key_id FROM user_sessions WHERE session_id = :'a_session_id';
SELECT data FROM session_get(:'a_session_token');
SELECT session_key_retire(1);
SELECT key_id, state, available, retired_at IS NOT NULL AS retired FROM session_keys() ORDER BY key_id;
CALL test.error('SELECT session_key_activate(1)');
CALL test.error('SELECT session_key_add(1)');
SELECT data FROM session_get(:'a_session_token');

-- A rotation before the key's change leaves a previous verifier: it holds
-- the key, too.
SELECT session_token FROM session_refresh(:'b_session_token', rotate => true) \gset b2_
SELECT session_key_activate(7);
SELECT session_reencrypt();
SELECT session_reencrypt(0);
SELECT count(*) FROM user_sessions WHERE key_id <> 7;
SELECT verifier_key_id, previous_key_id FROM user_sessions WHERE session_id = :'b_session_id';
CALL test.error('SELECT session_key_retire(2)');
SELECT data FROM session_get(:'b2_session_token');
SELECT data FROM session_get(:'b_session_token');	-- in its grace
SELECT session_reencrypt(NULL);
SELECT session_reencrypt(-1);

-- Re-sealing works through more than one batch.
SELECT count(*) FROM generate_series(1, 5) AS i, session_create('batch' || i, '{}');
SELECT session_key_activate(8);
SELECT session_reencrypt(3), session_reencrypt(3), session_reencrypt(3), session_reencrypt(3);
SELECT session_invalidate_all('batch' || i) FROM generate_series(1, 5) AS i;

-- The emergency stop: everything under the key is dead, whatever the rows
-- say, and nothing new is made until there is another key.
SELECT session_id, session_token FROM session_create('carol') \gset c_
BEGIN;
SELECT session_key_revoke(8);
ROLLBACK;
SELECT user_id FROM session_get(:'c_session_token');
SELECT session_key_revoke(8);
SELECT key_id, state, revoked_at IS NOT NULL AS revoked FROM session_keys() ORDER BY key_id;
SELECT user_id FROM session_get(:'c_session_token');
SELECT user_id FROM session_get(:'a_session_token');	-- re-sealed under it
SELECT session_status(:'c_session_token');
SELECT status FROM session_refresh(:'c_session_token');
SELECT * FROM session_update(:'c_session_token', '{}');
SELECT session_invalidate(:'c_session_token');
SELECT session_bind(:'c_session_token');
SELECT count(*) FROM session_list('carol');
SELECT session_active_count(user_id => 'carol');
CALL test.error($$SELECT session_create('carol')$$);
CALL test.error('SELECT session_key_activate(8)');
CALL test.error('SELECT session_key_retire(8)');
SELECT session_key_revoke(8);		-- twice is no error
CALL test.error('SELECT session_key_revoke(99)');

-- Another key revives nothing.
SELECT session_key_generate();
SELECT key_id, state FROM session_keys() ORDER BY key_id;
SELECT session_key_activate(9);
SELECT user_id FROM session_get(:'c_session_token');
SELECT session_id, session_token FROM session_create('dave', '{"n": 1}') \gset d_
SELECT data FROM session_get(:'d_session_token');

-- Wrong material under a right id is found at once, and never "no session".
SELECT pg_read_file(:'key_file') AS key_file_text \gset
SELECT test.shell(format('sed -i "s/^9:.*/9:%s/" %s', repeat('0b', 32), :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
SELECT key_id, available FROM session_keys() ORDER BY key_id;
CALL test.error(format('SELECT session_get(%L)', :'d_session_token'));
CALL test.error(format('SELECT session_refresh(%L)', :'d_session_token'));
CALL test.error(format('SELECT session_update(%L, ''{}'')', :'d_session_token'));
CALL test.error($$SELECT session_create('dave')$$);

-- The line is missing.
SELECT test.shell(format('sed -i "/^9:/d" %s', :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
CALL test.error(format('SELECT session_get(%L)', :'d_session_token'));
CALL test.error($$SELECT session_create('dave')$$);

-- Ending sessions needs no key.
SELECT session_id FROM user_sessions WHERE user_id = 'dave' \gset d_
BEGIN;
SELECT session_invalidate_id(:'d_session_id');
ROLLBACK;

-- A file that is not sound is reported and leaves the keys as they were.
SELECT test.shell(format('printf "%%s" %L > %s', :'key_file_text', :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
SELECT data FROM session_get(:'d_session_token');
SELECT test.shell(format('echo nonsense >> %s', :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
SELECT data FROM session_get(:'d_session_token');
CALL test.error('SELECT session_key_generate()');
SELECT test.shell(format('sed -i "\$d" %s; echo "9:%s" >> %s', :'key_file', repeat('0c', 32), :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
SELECT data FROM session_get(:'d_session_token');
SELECT test.shell(format('sed -i "\$d" %s; chmod 640 %s', :'key_file', :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
SELECT data FROM session_get(:'d_session_token');
SELECT test.shell(format('chmod 600 %s', :'key_file'));
\set ECHO none
SELECT test.configure() \gexec
\set ECHO all
SELECT data FROM session_get(:'d_session_token');

-- Events name the key and nothing more.
SELECT event, session_event_severity(event) AS severity, detail, session_id, user_id
FROM session_events WHERE event LIKE 'key\_%' ORDER BY event_id;

-- An empty database for the tests that follow
SELECT session_erase(user_id) FROM (SELECT DISTINCT user_id FROM user_sessions) AS u ORDER BY user_id;
SELECT count(*) FROM user_sessions;

-- Ids that no key has
CALL test.error('SELECT session_key_activate(0)');
CALL test.error('SELECT session_key_activate(-1)');
CALL test.error('SELECT session_key_retire(0)');
CALL test.error('SELECT session_key_retire(-2147483648)');
CALL test.error('SELECT session_key_revoke(0)');
CALL test.error('SELECT session_key_revoke(-2147483648)');

-- Where workers run, their first maintenance is over before the other tests.
DO $$
BEGIN
	IF current_setting('shared_preload_libraries') ~ 'session_manager' THEN
		FOR i IN 1..300 LOOP
			EXIT WHEN (SELECT sum(sweeps) FROM public.session_stats WHERE database_name = current_database()) > 0
				AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'session_manager worker' AND datname = current_database());
			PERFORM pg_stat_clear_snapshot(), pg_sleep(least(i, 20) * 0.1);
		END LOOP;
	END IF;
END
$$;
