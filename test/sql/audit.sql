--
-- session_audit: each requirement that a setting decides, met and not met
--
LOAD 'session_manager';
\set SHOW_CONTEXT never

SELECT * FROM session_audit('aal4');
SELECT * FROM session_audit('');
SELECT * FROM session_audit(NULL);

-- What a profile asks for: a level of ASVS has all of the level below, and every row has a reference.
SELECT profile, count(*), count(*) FILTER (WHERE met = 'application') AS application
FROM unnest(ARRAY['aal1', 'aal2', 'aal3', 'asvs1', 'asvs2', 'asvs3']) AS profile, session_audit(profile)
GROUP BY profile ORDER BY profile;
SELECT reference, requirement FROM session_audit('asvs1') EXCEPT SELECT reference, requirement FROM session_audit('asvs2');
SELECT reference, requirement FROM session_audit('asvs2') EXCEPT SELECT reference, requirement FROM session_audit('asvs3');
SELECT count(*) FROM unnest(ARRAY['aal1', 'aal2', 'aal3', 'asvs3']) AS profile, session_audit(profile)
WHERE (reference ~ '^NIST SP 800-63B-4 \d(\.\d)+|^ASVS v5\.0\.0-\d+\.\d+\.\d+$') IS NOT TRUE
   OR requirement IS NULL OR met NOT IN ('yes', 'no', 'application') OR met IS NULL
   OR (met = 'yes') <> (hint IS NULL) OR (setting IS NOT NULL AND value IS NULL);
SELECT profile, requirement FROM unnest(ARRAY['aal1', 'aal2', 'aal3', 'asvs3']) AS profile, session_audit(profile)
GROUP BY profile, reference, requirement HAVING count(*) > 1;
-- asvs2 is what is asked for if nothing is said
SELECT * FROM session_audit() EXCEPT SELECT * FROM session_audit('asvs2');

-- The settings as they are by default (whether tokens are redacted depends on preloading)
SELECT reference, setting, value, met, hint FROM session_audit('asvs3')
WHERE setting IS NOT NULL AND setting <> 'redact_tokens';
SELECT reference, setting, value, met, hint FROM session_audit('aal3') WHERE setting IS NOT NULL;

-- Each setting, on both sides of its limit
CREATE FUNCTION test.audited(profile text, name text, VARIADIC tried text[])
RETURNS TABLE (value text, reference text, met text)
LANGUAGE plpgsql AS $$
BEGIN
	FOREACH value IN ARRAY tried LOOP
		PERFORM set_config('session_manager.' || name, value, true);
		FOR reference, met IN SELECT a.reference, a.met FROM public.session_audit(profile) AS a
			WHERE a.setting = name AND a.value = current_setting('session_manager.' || name) LOOP
			RETURN NEXT;
		END LOOP;
	END LOOP;
END
$$;
SELECT * FROM test.audited('aal1', 'max_lifetime', '30d', '31d');
SELECT * FROM test.audited('aal2', 'max_lifetime', '24h', '1441min');
SELECT * FROM test.audited('aal2', 'idle_timeout', '1h', '61min', '0');
SELECT * FROM test.audited('aal3', 'max_lifetime', '12h', '721min');
SELECT * FROM test.audited('aal3', 'idle_timeout', '15min', '16min', '0');
SELECT * FROM test.audited('aal1', 'event_retention', '90d', '0');
SELECT * FROM test.audited('asvs2', 'event_retention', '90d', '0');
SELECT * FROM test.audited('asvs2', 'max_sessions_per_user', '1', '0');
SELECT * FROM test.audited('asvs2', 'idle_timeout', '1', '0');
SELECT * FROM test.audited('asvs2', 'max_lifetime', '30d', '31d');
SELECT * FROM test.audited('asvs1', 'revoke_commit', 'remote_apply', 'local');
SELECT * FROM test.audited('asvs3', 'new_device_events', 'on', 'off');
SELECT * FROM test.audited('asvs3', 'client_binding', 'log', 'strict', 'off');
-- (it tells more than the setting)
SET session_manager.redact_tokens = off;
SELECT value, met, hint FROM session_audit('asvs2') WHERE setting = 'redact_tokens';
RESET session_manager.redact_tokens;

-- (two that the server's configuration decides)
SELECT path AS key_file FROM test.key_file \gset
SELECT test.shell(format('chmod 640 %s', :'key_file'));
\set ECHO none
SELECT test.configure('session_manager.redis_mode', 'async') \gexec
\set ECHO all
SELECT setting, value, met FROM session_audit('asvs2') WHERE setting IN ('key_file', 'redis_mode');
SELECT test.shell(format('chmod 600 %s', :'key_file'));
\set ECHO none
SELECT test.configure('session_manager.redis_mode', 'strict') \gexec
\set ECHO all
SELECT setting, value, met FROM session_audit('asvs2') WHERE setting IN ('key_file', 'redis_mode');
\set ECHO none
SELECT test.configure('session_manager.redis_mode') \gexec
\set ECHO all

-- Each bundle with functions has it; nobody else does.
SELECT session_grant('regress_session_app', 'app');
SELECT session_grant('regress_session_monitor', 'monitor');
SET ROLE regress_session_app;
SELECT count(*) > 9 AS audited FROM session_audit('aal3');
SELECT count(*) FROM session_info();
SET ROLE regress_session_monitor;
SELECT count(*) > 9 AS audited FROM session_audit('aal3');
SET ROLE regress_session_nobody;
SELECT * FROM session_audit('aal3');
RESET ROLE;
SELECT session_revoke('regress_session_app', 'app');
SELECT session_revoke('regress_session_monitor', 'monitor');

-- Nothing in search_path changes the verdict.
CREATE SCHEMA hostile_audit;
CREATE FUNCTION hostile_audit.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT '1s' $$;
CREATE FUNCTION hostile_audit.session_info() RETURNS TABLE (key text, value text) LANGUAGE sql AS $$ VALUES ('key_file', 'loaded') $$;
SET search_path = hostile_audit, public, pg_catalog;
SELECT met FROM session_audit('asvs2') WHERE setting = 'idle_timeout';
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA hostile_audit CASCADE;
RESET client_min_messages;

-- Read-only: an audit writes nothing.
BEGIN READ ONLY;
SELECT count(*) > 9 AS audited FROM session_audit();
ROLLBACK;
