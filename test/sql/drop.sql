--
-- DROP EXTENSION and CREATE EXTENSION in one connection, elsewhere
--
SELECT session_token FROM session_create('alice', '{"n": 1}') \gset a_
SELECT data FROM session_get(:'a_session_token');
SET client_min_messages = warning;
DROP VIEW IF EXISTS test.function;
RESET client_min_messages;
DROP VIEW test.members, test.partition;
DROP EXTENSION session_manager;
\set VERBOSITY sqlstate
SELECT session_get('x');
\set VERBOSITY default
SELECT relname FROM pg_class WHERE relname ~ '^(user_session|session_)' AND relkind <> 'i';

-- Default privileges open nothing, see below.
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_session_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_session_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_session_app;

-- In a schema of its own, with a name that needs quotes
CREATE SCHEMA "Session's ""House""";
-- what somebody left there for the script to trip over
CREATE FUNCTION "Session's ""House""".captured(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE OPERATOR "Session's ""House""".= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = "Session's ""House""".captured);
CREATE FUNCTION "Session's ""House""".captured(oid, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE OPERATOR "Session's ""House""".= (LEFTARG = oid, RIGHTARG = integer, FUNCTION = "Session's ""House""".captured);
CREATE FUNCTION "Session's ""House""".quote_ident(name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE FUNCTION "Session's ""House""".nextval(text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'captured'; END $$;
CREATE EXTENSION session_manager SCHEMA "Session's ""House""";
SELECT pg_get_expr(adbin, adrelid) LIKE '%captured%' OR pg_get_expr(adbin, adrelid) LIKE '%House%.nextval(%' AS captured
FROM pg_attrdef WHERE adrelid = '"Session''s ""House""".session_events'::regclass;
SET search_path = "Session's ""House""", public;
SELECT count(*) FROM session_get(:'a_session_token');
SELECT session_key_generate() > 0 AS made;
SELECT session_id, session_token FROM session_create('alice', '{"n": 2}') \gset a_
SELECT data FROM session_get(:'a_session_token');
-- columns, triggers and references that the library does not know of
ALTER TABLE user_sessions ADD COLUMN note text DEFAULT 'kept', ADD COLUMN n bigint, ADD COLUMN m text;
ALTER TABLE session_events ADD COLUMN note text;
CREATE TABLE test.basket (session_id uuid REFERENCES user_sessions ON DELETE CASCADE);
CREATE FUNCTION test.told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE INFO '% of user_sessions', TG_OP; RETURN NULL; END $$;
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON user_sessions FOR EACH ROW EXECUTE FUNCTION test.told();
INSERT INTO test.basket SELECT session_id FROM user_sessions;
SELECT status FROM session_refresh(:'a_session_token');
SELECT note FROM user_sessions;
SELECT session_id FROM session_create('bob') \gset b_
INSERT INTO test.basket VALUES (:'b_session_id');
SELECT session_invalidate_all('bob');
SELECT session_erase('bob');
SELECT count(*) FROM test.basket;
DROP TRIGGER told ON user_sessions;
DROP TABLE test.basket;
SET search_path = pg_catalog;
SELECT data, version FROM "Session's ""House""".session_update(:'a_session_token', '{"n": 3}');
SELECT session_token FROM "Session's ""House""".session_refresh(:'a_session_token', true) \gset a_
SELECT session_token FROM "Session's ""House""".session_elevate(:'a_session_token', '{}') \gset a_
SELECT "Session's ""House""".session_update_user('alice', '{"n": 4}');
SELECT event FROM "Session's ""House""".session_history(:'a_session_id');
SELECT sessions_deleted FROM "Session's ""House""".session_cleanup();
SELECT count(*) FROM pg_inherits WHERE inhparent = '"Session''s ""House""".session_events'::regclass
	AND inhrelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'Session''s "House"'));
SELECT "Session's ""House""".session_export('alice')::jsonb #> '{sessions,0,data}' AS data;
SELECT "Session's ""House""".session_active_count(), "Session's ""House""".session_reencrypt();
-- neither what the script made nor the partitions made since
SELECT count(*) FROM pg_class, aclexplode(relacl)
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'Session''s "House"') AND grantee = 'regress_session_app'::regrole;
SELECT count(*) FROM pg_proc, aclexplode(proacl)
WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'Session''s "House"') AND grantee IN (0, 'regress_session_app'::regrole) AND proname LIKE 'session\_%';
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_session_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM regress_session_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM regress_session_app;
SELECT "Session's ""House""".session_grant('regress_session_app', 'app');
-- a bundle brings the right to use the schema
SET ROLE regress_session_app;
SELECT data FROM "Session's ""House""".session_get(:'a_session_token');
RESET ROLE;
SELECT "Session's ""House""".session_revoke('regress_session_app', 'app');
SELECT "Session's ""House""".session_invalidate_everything(), "Session's ""House""".session_erase('alice');
RESET search_path;
DROP EXTENSION session_manager;

-- And back, without leaving the connection
CREATE EXTENSION session_manager;
SELECT session_key_generate() > 0 AS made;
SELECT session_token FROM session_create('alice', '{"n": 5}') \gset a_
SELECT data FROM session_get(:'a_session_token');
-- dropped and made again in one transaction that is undone
BEGIN;
DROP EXTENSION session_manager;
CREATE EXTENSION session_manager;
SELECT count(*) FROM session_get(:'a_session_token');
ROLLBACK;
SELECT data FROM session_get(:'a_session_token');
DROP EXTENSION session_manager CASCADE;
DROP EXTENSION pgcrypto;

-- Leave the cluster as it was.
SELECT path FROM test.key_file \gset
\set ECHO none
SELECT test.configure('session_manager.key_file', original) FROM test.key_file \gexec
\set ECHO all
SELECT test.shell('rm -r ' || :'path' || ' && rmdir "$(dirname ' || :'path' || ')"');
SET client_min_messages = warning;
DROP SCHEMA "Session's ""House""" CASCADE;
RESET client_min_messages;
SET client_min_messages = warning;
DROP SCHEMA test CASCADE;
DROP OWNED BY regress_session_app, regress_session_admin, regress_session_monitor, regress_session_nobody;
DROP ROLE regress_session_app, regress_session_admin, regress_session_monitor, regress_session_nobody;
