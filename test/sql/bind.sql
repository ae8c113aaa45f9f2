--
-- session_bind: the identity for row-level security
--
CREATE TABLE test.note (owner text, tenant text, body text);
INSERT INTO test.note VALUES
	('alice', 'acme', 'of alice in acme'), ('alice', NULL, 'of alice alone'),
	('bob', 'acme', 'of bob in acme'), ('bob', NULL, 'of bob alone');
ALTER TABLE test.note ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON test.note
	USING (owner = session_user_id() AND tenant IS NOT DISTINCT FROM session_tenant_id());
GRANT SELECT, INSERT, UPDATE ON test.note TO regress_session_app;
SELECT session_grant('regress_session_app', 'app');
SELECT session_id, session_token FROM session_create('alice') \gset a_
SELECT session_id, session_token FROM session_create('bob', tenant_id => 'acme') \gset b_

SET ROLE regress_session_app;
-- Nobody: no rows
SELECT session_user_id(), session_tenant_id(), session_id();
SELECT body FROM test.note;
-- Bound for the transaction, and no longer
BEGIN;
SELECT session_bind(:'a_session_token');
SELECT session_user_id(), session_tenant_id(), session_id() = :'a_session_id' AS id;
SELECT body FROM test.note;
INSERT INTO test.note VALUES ('bob', 'acme', 'forged');
ROLLBACK;
SELECT session_user_id(), session_tenant_id(), session_id();
SELECT body FROM test.note;
BEGIN;
SELECT session_bind(session_token_digest(:'b_session_token'));
SELECT session_user_id(), session_tenant_id(), session_id() = :'b_session_id' AS id;
SELECT body FROM test.note;
INSERT INTO test.note VALUES ('bob', 'acme', 'second of bob');
COMMIT;
SELECT session_user_id(), session_tenant_id(), session_id();
-- outside a transaction block it lasts for its statement
SELECT session_bind(:'a_session_token');
SELECT session_user_id();
SELECT body FROM (SELECT session_bind(:'b_session_token') OFFSET 0) AS b, LATERAL (SELECT body FROM test.note WHERE b IS NOT NULL) AS n ORDER BY body;
-- the last one counts
BEGIN;
SELECT session_bind(:'a_session_token'), session_bind(:'b_session_token');
SELECT session_user_id(), session_tenant_id();
SELECT body FROM test.note;
-- one that fails leaves nobody
SELECT session_bind(test.change_char(:'a_session_token', 68));
SELECT session_user_id(), session_tenant_id(), session_id();
SELECT body FROM test.note;
SELECT session_bind(:'a_session_token');
SELECT session_user_id();
SELECT session_bind(NULL);
SELECT session_user_id();
SELECT session_bind(:'a_session_token');
SELECT session_bind('x');
SELECT session_user_id();
COMMIT;

-- Savepoints: what is rolled back is undone, also when it was a failure
BEGIN;
SELECT session_bind(:'a_session_token');
SAVEPOINT s1;
SELECT session_bind(:'b_session_token');
SELECT session_user_id(), session_tenant_id();
SAVEPOINT s2;
SELECT session_bind('x');
SELECT session_user_id(), session_tenant_id();
ROLLBACK TO s2;
SELECT session_user_id(), session_tenant_id();
ROLLBACK TO s1;
SELECT session_user_id(), session_tenant_id(), session_id() = :'a_session_id' AS id;
SAVEPOINT s3;
SELECT session_bind(:'b_session_token');
RELEASE s3;
SELECT session_user_id(), session_tenant_id();
SAVEPOINT s4;
SAVEPOINT s5;
SELECT session_bind(:'a_session_token');
RELEASE s5;
SELECT session_user_id(), session_tenant_id();
ROLLBACK TO s4;
SELECT session_user_id(), session_tenant_id();
SAVEPOINT s6;
SELECT 1 / 0;
ROLLBACK TO s6;
SELECT session_user_id(), session_tenant_id();
COMMIT;
SELECT session_user_id();
-- bound in a subtransaction that fails in PL/pgSQL
BEGIN;
DO $$
BEGIN
	PERFORM session_bind(session_token) FROM session_create('mallory');
	RAISE 'undo';
EXCEPTION WHEN raise_exception THEN
	NULL;
END
$$;
SELECT session_user_id();
COMMIT;
BEGIN;
SAVEPOINT s;
SELECT session_bind(:'a_session_token');
ROLLBACK TO s;
SELECT session_user_id();
ROLLBACK;
-- an error ends it, too
BEGIN;
SELECT session_bind(:'a_session_token');
SELECT 1 / 0;
ROLLBACK;
SELECT session_user_id();
-- a session that ends in the same transaction is not bound again
BEGIN;
SELECT session_bind(:'a_session_token');
SELECT session_invalidate(:'a_session_token');
SELECT session_user_id();
SELECT session_bind(:'a_session_token');
SELECT session_user_id();
ROLLBACK;

-- No setting makes an identity.
SET session_manager.user_id = 'alice';
SELECT set_config('session_manager.session_user_id', 'alice', false);
SELECT body FROM test.note;
RESET ROLE;

-- A chained transaction starts as nobody.
BEGIN;
SELECT session_bind(:'a_session_token');
COMMIT AND CHAIN;
SELECT session_user_id();
COMMIT;

-- Nor does binding in many subtransactions pile up.
CREATE FUNCTION test.bind_often(token text, n int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
BEGIN
	FOR i IN 1..n LOOP
		IF i = 2 THEN
			before := (SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext');
		END IF;
		BEGIN
			PERFORM public.session_bind(token);
			IF i % 3 = 0 THEN
				PERFORM 1 / 0;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
		END;
	END LOOP;
	RETURN (SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext') - before;
END
$$;
BEGIN;
SELECT session_bind(:'a_session_token');
SELECT test.bind_often(:'a_session_token', 400) < 20000 AS flat;
SELECT session_user_id() IS NOT NULL AS bound;
COMMIT;
DROP FUNCTION test.bind_often;

-- What ended does not bind; the failure is on record, once a second.
SELECT count(*) FROM (SELECT pg_sleep(1.1)) AS s;
DELETE FROM session_events;
SELECT session_invalidate(:'a_session_token');
SELECT session_bind(:'a_session_token');
SELECT event, detail - 'suppressed' AS detail, session_event_severity(event) FROM test.events(:'a_session_id') WHERE event = 'bind_failed';

DROP TABLE test.note;
SELECT session_revoke('regress_session_app', 'app');
SELECT count(session_erase(user_id)) > 0 AS erased FROM (SELECT DISTINCT user_id FROM user_sessions) AS u;
