--
-- Who may do what: PUBLIC nothing, each bundle exactly its functions
--
CREATE VIEW test.function AS
SELECT p.oid, p.oid::regprocedure::text AS function
FROM pg_proc AS p JOIN test.members ON p.oid = objid AND classid = 'pg_proc'::regclass;
CREATE FUNCTION test.may(role text, OUT functions bigint) RETURNS bigint
LANGUAGE sql AS $$ SELECT count(*) FROM test.function WHERE has_function_privilege(role, oid, 'EXECUTE') $$;

-- Before any grant: nothing for anybody, in any form
SELECT count(*) FROM test.function WHERE has_function_privilege('public', oid, 'EXECUTE');
SELECT role, test.may(role) FROM unnest(ARRAY['regress_session_app', 'regress_session_admin', 'regress_session_monitor', 'regress_session_nobody']) AS role;
SELECT session_grant('regress_session_app', 'app');
SELECT session_grant('regress_session_admin', 'admin');
SELECT session_grant('regress_session_monitor', 'monitor');
SELECT session_grant('regress_session_app', 'app');		-- again

-- The whole matrix
SELECT function, has_function_privilege('public', oid, 'EXECUTE') AS public,
	has_function_privilege('regress_session_monitor', oid, 'EXECUTE') AS monitor,
	has_function_privilege('regress_session_app', oid, 'EXECUTE') AS app,
	has_function_privilege('regress_session_admin', oid, 'EXECUTE') AS admin
FROM test.function ORDER BY function COLLATE "C";

-- Tables, columns and sequences: nothing
SELECT r.rolname, c.oid::regclass, p.privilege
FROM pg_class AS c,
	(VALUES ('regress_session_app'), ('regress_session_admin'), ('regress_session_monitor'), ('regress_session_nobody')) AS r(rolname),
	unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p(privilege)
WHERE (c.oid IN (SELECT objid FROM test.members WHERE classid = 'pg_class'::regclass)
	OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'session_events'::regclass))
  AND relkind IN ('r', 'p')
  AND (has_table_privilege(r.rolname, c.oid, p.privilege)
	OR p.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(r.rolname, c.oid, p.privilege));
SELECT r.rolname, p.privilege
FROM (VALUES ('regress_session_app'), ('regress_session_admin'), ('regress_session_monitor'), ('regress_session_nobody')) AS r(rolname),
	unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS p(privilege)
WHERE has_sequence_privilege(r.rolname, 'session_events_event_id_seq', p.privilege);

-- The bundle reader: SELECT on columns without secrets, no function, nothing else.  Any column more or less shows here.
SELECT session_grant('regress_session_nobody', 'reader');
SELECT session_grant('regress_session_nobody', 'reader');		-- again
\x on
SELECT a.attrelid::regclass AS relation, string_agg(a.attname, ' ' ORDER BY a.attnum) FILTER (WHERE has_column_privilege('regress_session_nobody', a.attrelid, a.attnum, 'SELECT')) AS may_read,
	string_agg(a.attname, ' ' ORDER BY a.attnum) FILTER (WHERE NOT has_column_privilege('regress_session_nobody', a.attrelid, a.attnum, 'SELECT')) AS may_not
FROM pg_attribute AS a JOIN test.members ON a.attrelid = objid AND classid = 'pg_class'::regclass JOIN pg_class AS c ON c.oid = objid
WHERE relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped GROUP BY a.attrelid ORDER BY a.attrelid::regclass::text COLLATE "C";
\x off
SELECT c.oid::regclass, p.privilege
FROM pg_class AS c JOIN test.members ON c.oid = objid AND classid = 'pg_class'::regclass,
	unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p(privilege)
WHERE relkind IN ('r', 'p', 'v') AND (has_table_privilege('regress_session_nobody', c.oid, p.privilege)
	OR p.privilege IN ('INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege('regress_session_nobody', c.oid, p.privilege));
SELECT test.may('regress_session_nobody');
SET ROLE regress_session_nobody;
SELECT count(user_id) >= 0 AS sessions FROM user_sessions;
SELECT count(user_id) >= 0 AS events FROM session_events;
SELECT ctid FROM user_sessions;
SELECT verifier FROM user_sessions;
BEGIN;
LOCK TABLE user_sessions IN ACCESS SHARE MODE;
ROLLBACK;
RESET ROLE;
SELECT session_revoke('regress_session_nobody', 'reader');
SELECT count(*) FROM test.members JOIN pg_class AS c ON c.oid = objid AND classid = 'pg_class'::regclass
WHERE relkind IN ('r', 'p', 'v') AND has_any_column_privilege('regress_session_nobody', c.oid, 'SELECT');

-- The view comes with the bundles that are to look at it, and goes with them.
SELECT role, has_table_privilege(role, 'session_stats', 'SELECT') AS may
FROM unnest(ARRAY['regress_session_app', 'regress_session_admin', 'regress_session_monitor']) AS role;
SET ROLE regress_session_monitor;
SELECT count(*) >= 0 AS looked FROM session_stats;
RESET ROLE;

-- The application's role runs each of its functions, with no other right.
SET ROLE regress_session_app;
SELECT session_id, session_token FROM session_create('alice', '{"n": 1}', ip => '192.0.2.1') \gset a_
SELECT data FROM session_get(:'a_session_token');
SELECT version FROM session_update(:'a_session_token', '{"n": 2}');
SELECT session_update_user('alice', '{"n": 3}');
SELECT status FROM session_refresh(:'a_session_token');
SELECT session_token FROM session_refresh(:'a_session_token', rotate => true) \gset a_
SELECT session_token FROM session_elevate(:'a_session_token', '{"amr": ["otp"]}') \gset a_
SELECT count(*) FROM session_list('alice');
-- (other tests have left events of alice, so this may be a new device)
SELECT event FROM session_history(:'a_session_id') WHERE event <> 'new_device';
SELECT session_id, session_token FROM session_switch_tenant(:'a_session_token', 'acme') \gset a_
BEGIN;
SELECT session_bind(:'a_session_token');
SELECT session_user_id(), session_tenant_id(), session_id() = :'a_session_id' AS id;
COMMIT;
SELECT session_bucket('alice') = session_bucket(:'a_session_id'::uuid) AS bucket, session_token_digest(:'a_session_token') ~ '^sd1_' AS digest,
	session_event_severity('created') AS severity, session_active_count(user_id => 'alice') AS live;
SELECT sessions_deleted FROM session_cleanup();
SELECT session_invalidate(:'a_session_token');
SELECT session_id FROM session_create('alice') \gset b_
SELECT session_invalidate_id(:'b_session_id', 'alice');
SELECT count(*) FROM generate_series(1, 2) AS i, session_create('alice', jsonb_build_object('i', i));
SELECT session_invalidate_all('alice');
SELECT session_end_reason(:'a_session_token');
-- and no other
SELECT session_status('x');
SELECT session_invalidate_tenant('acme');
SELECT session_invalidate_everything();
SELECT session_export('alice');
SELECT session_erase('alice');
SELECT session_key_generate();
SELECT session_key_add(1);
SELECT session_key_activate(1);
SELECT session_key_retire(1);
SELECT session_key_revoke(1);
SELECT * FROM session_keys();
SELECT session_reencrypt();
SELECT * FROM session_info();
SELECT session_grant('regress_session_app', 'admin');
SELECT session_revoke('regress_session_admin', 'admin');
SELECT * FROM user_sessions;
SELECT * FROM session_events;
SELECT * FROM session_keys;
SELECT * FROM session_installation;
SELECT nextval('session_events_event_id_seq');
SET session_manager.ttl = '1 year';
SET session_manager.redact_tokens = off;
\set VERBOSITY sqlstate
SHOW session_manager.key_file;
\set VERBOSITY default

-- The administrator's runs its own.
SET ROLE regress_session_admin;
SELECT session_token FROM session_create('alice', tenant_id => 'acme') \gset a_
SELECT session_status(:'a_session_token');
SELECT session_invalidate_tenant('acme');
SELECT session_invalidate_everything();
SELECT session_export('alice')::jsonb ? 'sessions' AS export;
SELECT session_erase('alice') > 0 AS erased;
SELECT key_id AS active FROM session_keys() WHERE state = 'active' \gset
SELECT session_key_activate(:active);
CALL test.error('SELECT session_key_retire(' || :active || ')');
CALL test.error('SELECT session_key_add(' || :active || ')');
CALL test.error('SELECT session_key_revoke(12345)');
SELECT session_reencrypt();
SELECT count(*) > 0 AS info FROM session_info();
SELECT session_key_generate();
SELECT session_grant('regress_session_nobody', 'app');
SELECT session_revoke('regress_session_app', 'app');
SELECT * FROM user_sessions;

-- The monitor's
SET ROLE regress_session_monitor;
SELECT count(*) > 0 AS keys FROM session_keys();
SELECT count(*) > 0 AS info FROM session_info();
SELECT session_active_count(), session_event_severity('created'), session_bucket('alice') >= 0 AS bucket;
SELECT * FROM session_get('x');
SELECT session_history();
RESET ROLE;

-- session_key_generate is for superusers, whoever else holds EXECUTE.
GRANT EXECUTE ON FUNCTION session_key_generate() TO regress_session_admin;
SET ROLE regress_session_admin;
CALL test.error('SELECT session_key_generate()');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION session_key_generate() FROM regress_session_admin;
-- granting with session_grant takes the owner's rights, whoever holds EXECUTE
GRANT EXECUTE ON FUNCTION session_grant(regrole, text) TO regress_session_nobody;
SET ROLE regress_session_nobody;
CALL test.error($$SELECT session_grant('regress_session_nobody', 'app')$$);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION session_grant(regrole, text) FROM regress_session_nobody;
SELECT test.may('regress_session_nobody');

-- A role's member has what the role has; others have not.
GRANT regress_session_app TO regress_session_nobody;
SET ROLE regress_session_nobody;
SELECT count(*) FROM session_get('x');
RESET ROLE;
REVOKE regress_session_app FROM regress_session_nobody;
SET ROLE regress_session_nobody;
SELECT count(*) FROM session_get('x');
RESET ROLE;

-- What is asked for wrongly
CALL test.error($$SELECT session_grant('regress_session_app', 'owner')$$);
CALL test.error($$SELECT session_grant('regress_session_app', '')$$);
CALL test.error($$SELECT session_revoke('regress_session_app', 'App')$$);
CALL test.error($$SELECT session_grant('regress_no_such_role', 'app')$$);
CALL test.error($$SELECT session_grant(0::regrole, 'app')$$);
SELECT session_grant(NULL, 'app'), session_grant('regress_session_app', NULL);

-- Bundles overlap: what two share goes with either, and comes back with a grant.
SELECT session_grant('regress_session_app', 'monitor');
SELECT session_revoke('regress_session_app', 'monitor');
SELECT count(*) FROM test.function WHERE has_function_privilege('regress_session_monitor', oid, 'EXECUTE') AND has_function_privilege('regress_session_app', oid, 'EXECUTE');
SELECT session_grant('regress_session_app', 'app');
SELECT test.may('regress_session_app');

-- What the caller has deferred fires as the caller, under the caller's search_path.
SET ROLE regress_session_app;
CREATE TEMP TABLE late (n int);
CREATE FUNCTION pg_temp.fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'fires as %, %', current_user, current_setting('search_path');
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.fire();
SET search_path = public;
BEGIN;
INSERT INTO pg_temp.late VALUES (1);
SELECT count(*) FROM session_cleanup();
COMMIT;
SELECT current_user, current_setting('search_path') AS search_path;
RESET search_path;
DROP TABLE pg_temp.late;
RESET ROLE;

-- Taking back leaves nothing, and twice is no error.
SELECT session_revoke('regress_session_monitor', 'monitor');
SELECT session_revoke('regress_session_admin', 'admin');
SELECT session_revoke('regress_session_app', 'app');
SELECT session_revoke('regress_session_app', 'app');
SELECT role, test.may(role) FROM unnest(ARRAY['regress_session_app', 'regress_session_admin', 'regress_session_monitor', 'regress_session_nobody']) AS role;
SET ROLE regress_session_app;
SELECT * FROM session_get('x');
RESET ROLE;

-- What has been taken from the extension is missed, not left out.
BEGIN;
ALTER EXTENSION session_manager DROP FUNCTION session_get(text, inet, text, boolean);
CALL test.error($$SELECT session_grant('regress_session_app', 'app')$$);
ROLLBACK;
