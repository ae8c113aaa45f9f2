--
-- A hostile search_path: what an attacker puts in front of pg_catalog is
-- never run with the extension's rights, and changes no result
--
SELECT session_grant('regress_session_app', 'app');
SELECT session_grant('regress_session_admin', 'admin');
SELECT session_token FROM session_create('alice', '{"n": 1}') \gset w_
SELECT $$
-----BEGIN PGP PUBLIC KEY BLOCK-----

mQENBGsFT3IBCADT5TFea5ypiM3E9jyqSBf2efj4GshFHcbLmYaoEtRcBL2UH7F6
erAaHd1X6d6Q8ChuB5dJbfEa1GmSHXlCw6GFtM1HWCx4l/zlFIiVK8dx89IGOZoi
bn+ZP9vTa+h0btPO7xjEdhuWtlLcXkUtauClTInal/LiPUeTqKAkNu0IoA7L/jrp
SW+Nmr4VaT+i+p1hCKXzHyaTohAj9g0VQdif3yskvvYuehs7QLYoCvgdLvRn0sqI
2e0vY34SOIZHVnf38w+oRfkLyMw16Fl3+uEA0iokS048apg03smmTDKRqTb0PGhs
i/ckaTet5C8iPe4Cu7MdUdEb/MzpHkIAi2DfABEBAAG0E1Nlc3Npb24gZXhwb3J0
IHRlc3SJAU4EEwEKADgWIQSoWmx3N18iSohBTqR9aCS0DM1ChQUCawVPcgIbAwUL
CQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRB9aCS0DM1Chae1B/9aE2f5OearIi4s
ccq3jRvMHAcLqsLF3ku1TdfjqKZhqF54kMMOydJLv7eBX4GeD2WsC92Gtro5VuRH
uz6ylHNf8C4brsN4zFBvzhYmoclkuMhW5AhqzLrOGQ2nAWhYg6g5RUeLeHpNNuI4
lrKOLJrs910CGS07DEdf2kGLRQZl/ThyqTUGf+97D+h3asWl5LwpgpGAISC5QZ0i
55nxRsOpSPlASWKmqFWtY9/0RcOUQutr5bBPPZ2ft9XHpvmEAIct9cGZV7+tVDGD
Rs1ax56C5+CluRGup0BpHE09j8vmid/95kKAdTFi+8pYYRdKDJkaPKXU01B3Hh5d
02fohevOuQENBGsFT3IBCADjw7yU/ZLDbdmDg5A4cT/CdNZosIIWldmLAK7ZRm94
fcmfT/FCP+HlfFS5OA98BVBwJ8l+g4nMLiJSXAkvGR/G42Lhw9EnRLc2VVSglvHd
iy4TgrkqWxfdE+Iq2RqPq8i0sEsJ4iSRPEaeZ4mUsB55Mto6FUN+V3oxh0DAXI1H
+55sPS8D3opQLF/aE7+RcW4/HRCHy2lS3lkqUc+zbOJJaq7FGGygoE34mSFuvIiz
tyN9QHNFzFH677fD/GDxmZqF/H1v7CKu/vwyIGiGm8XS8aat3bY45d7BGVjPtDlZ
U/hJydO+qxbvBdBDuYgKd9bndtsTZmC9pWHZhtzqwzY1ABEBAAGJATYEGAEKACAW
IQSoWmx3N18iSohBTqR9aCS0DM1ChQUCawVPcgIbDAAKCRB9aCS0DM1CheUuB/9k
kKwMIZc/N6aX5nxbCplIeljzPrHmFlWgRVQ6Vw5MPgzZWMt3LOyeY41t3NYMFXff
aCh1evfJvSiVk5xkegBleRo9GlMKSoyJkHTtM0lJ7CrnKEjd9w4R7xoy6vyhwR2v
IROBX0IP3hko1tQh/uC9HzYY2G5OhE3XJGmHWIMlV0NAqM/YmToAlDz+QlY3OTXK
+wNzTWqJOnt4wt+sXLDJnuOAxfrkyGUyBuF3QY/Ie7jzA+qEYgIJlR+L0i5t+psL
rFIHZiXTCQF8SOQpdjY/oLVMAIVv6IQKfakfFJ0e/0P3z7NDcgdlaz6TKTDT0Jcl
g1SaiTlTLYkskxfzo2A/
=HSnb
-----END PGP PUBLIC KEY BLOCK-----
$$ AS public_key \gset
SELECT data FROM session_get(:'w_session_token');		-- plans are made before the attack as well

-- Leave session_cleanup all its kinds of work.
SELECT test.drop_partitions('-infinity');
SELECT session_id FROM session_create('due') \gset d_
UPDATE user_sessions SET expires_at = clock_timestamp(), sweep_at = clock_timestamp() WHERE session_id = :'d_session_id';

-- Every function and operator of pg_catalog that can be shadowed, as a trap
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
SET check_function_bodies = off;
SET client_min_messages = error;
DO $$
DECLARE
	f record;
BEGIN
	FOR f IN
		SELECT proname, pg_get_function_identity_arguments(p.oid) AS args, format_type(prorettype, NULL) AS result, proretset
		FROM pg_proc AS p
		WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND provariadic = 0
		  AND NOT EXISTS (SELECT FROM pg_type AS t WHERE typtype = 'p' AND t.oid = ANY (proargtypes || prorettype))
	LOOP
		EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS $f$ BEGIN RAISE ''hostile function %s executed by %%'', current_user; END $f$',
			f.proname, f.args, CASE WHEN f.proretset THEN 'SETOF' END, f.result, f.proname);
	END LOOP;
	FOR f IN
		SELECT oprname, nullif(oprleft, 0)::regtype AS l, oprright::regtype AS r, oprcode::regproc AS code, p.proname
		FROM pg_operator AS o JOIN pg_proc AS p ON p.oid = oprcode
		WHERE oprnamespace = 'pg_catalog'::regnamespace
		  AND EXISTS (SELECT FROM pg_proc AS h WHERE h.pronamespace = 'hostile'::regnamespace
			AND h.proname = p.proname AND h.proargtypes = p.proargtypes)
	LOOP
		EXECUTE format('CREATE OPERATOR hostile.%s (%s RIGHTARG = %s, FUNCTION = hostile.%I)',
			f.oprname, 'LEFTARG = ' || f.l || ',', f.r, f.proname);
	END LOOP;
END
$$;
RESET check_function_bodies;
SELECT count(*) > 1500 AS functions FROM pg_proc WHERE pronamespace = 'hostile'::regnamespace;
SELECT count(*) > 500 AS operators FROM pg_operator WHERE oprnamespace = 'hostile'::regnamespace;
-- and more that could be taken for what the extension or pgcrypto has
CREATE FUNCTION hostile.pgp_pub_encrypt(text, bytea) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile function executed'; END $$;
CREATE FUNCTION hostile.dearmor(text) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile function executed'; END $$;
CREATE FUNCTION hostile.armor(bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile function executed'; END $$;
CREATE FUNCTION hostile.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile trigger executed'; END $$;
CREATE TABLE hostile.user_sessions (LIKE public.user_sessions);
CREATE TABLE hostile.session_events (LIKE public.session_events);
CREATE TABLE hostile.session_events_default (LIKE public.session_events);
CREATE TABLE hostile.session_keys (LIKE public.session_keys);
CREATE TABLE hostile.session_installation (LIKE public.session_installation);
CREATE TABLE hostile.pg_class (LIKE pg_catalog.pg_class);
CREATE TABLE hostile.pg_inherits (LIKE pg_catalog.pg_inherits);
CREATE TABLE hostile.pg_proc (LIKE pg_catalog.pg_proc);
CREATE TABLE hostile.pg_extension (LIKE pg_catalog.pg_extension);
CREATE TABLE hostile.pg_depend (LIKE pg_catalog.pg_depend);
CREATE SEQUENCE hostile.session_events_event_id_seq;
DO $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY ARRAY['user_sessions', 'session_events', 'session_events_default', 'session_keys', 'session_installation'] LOOP
		EXECUTE format('CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON hostile.%I FOR EACH STATEMENT EXECUTE FUNCTION hostile.trap()', t);
		EXECUTE format('GRANT ALL ON hostile.%I TO PUBLIC', t);
	END LOOP;
END
$$;
-- the same tables in pg_temp, which comes first unless search_path names it
CREATE PROCEDURE test.shadow_in_pg_temp()
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	t text;
BEGIN
	FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'hostile'::regnamespace AND relkind = 'r' LOOP
		EXECUTE format('CREATE TEMPORARY TABLE %I (LIKE hostile.%I)', t, t);
		EXECUTE format('CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.%I FOR EACH STATEMENT EXECUTE FUNCTION hostile.trap()', t);
		EXECUTE format('GRANT ALL ON pg_temp.%I TO PUBLIC', t);
	END LOOP;
END
$$;
CALL test.shadow_in_pg_temp();
CREATE DOMAIN hostile.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN hostile.jsonb AS pg_catalog.jsonb CHECK (false);
CREATE DOMAIN hostile.uuid AS pg_catalog.uuid CHECK (false);
CREATE DOMAIN hostile.timestamptz AS pg_catalog.timestamptz CHECK (false);
RESET client_min_messages;

-- The traps work.
\set SHOW_CONTEXT never
SET search_path = hostile, pg_catalog;
SELECT lower('X');
SELECT 1 + 1;
SELECT now();

-- The application's role
SET ROLE regress_session_app;
SELECT data FROM public.session_get(:'w_session_token');
SELECT session_id, session_token FROM public.session_create('bob', '{"n": 1}', ttl => '1 hour', ip => '192.0.2.1', user_agent => 'one', tenant_id => 'acme', auth => '{"amr": ["pwd"]}') \gset b_
SELECT user_id, tenant_id, data, version, auth FROM public.session_get(:'b_session_token', '192.0.2.1', 'one');
SELECT version, data FROM public.session_update(:'b_session_token', '{"n": 2}');
SELECT public.session_update_user('bob', '{"n": 3}');
SELECT status FROM public.session_refresh(:'b_session_token');
SELECT session_token FROM public.session_refresh(:'b_session_token', true) \gset b_
SELECT session_token FROM public.session_elevate(:'b_session_token', '{"amr": ["otp"]}') \gset b_
SELECT is_current, ip, auth FROM public.session_list('bob', :'b_session_token');
SELECT event FROM public.session_history(:'b_session_id');
BEGIN;
SELECT public.session_bind(:'b_session_token');
SELECT public.session_user_id(), public.session_tenant_id();
COMMIT;
SELECT public.session_bucket('bob'), public.session_event_severity('created'), public.session_active_count('acme', 'bob');
SELECT sessions_deleted, partitions_created FROM public.session_cleanup();
SELECT public.session_invalidate(:'b_session_token');
SELECT public.session_invalidate_id(:'b_session_id');
SELECT public.session_invalidate_all('bob', :'b_session_token', 'acme');

-- The administrator's
SET ROLE regress_session_admin;
SELECT session_id, session_token FROM public.session_create('bob', tenant_id => 'acme') \gset b_
SELECT public.session_status(:'b_session_token');
SELECT public.session_invalidate_tenant('acme');
SELECT public.session_invalidate_everything();
SELECT public.session_export('bob') AS export \gset
SELECT public.session_export('bob', :'public_key') AS message \gset
SELECT public.session_erase('bob'), public.session_erase('alice');
SELECT available FROM public.session_keys() WHERE state OPERATOR(pg_catalog.=) 'active';
SELECT key_id AS active FROM public.session_keys() WHERE state OPERATOR(pg_catalog.=) 'active' \gset
SELECT public.session_key_activate(:active);
SELECT public.session_key_retire(:active);
SELECT public.session_key_add(:active);
SELECT public.session_reencrypt();
SELECT key FROM public.session_info() LIMIT 1;
-- The superuser's own
RESET ROLE;
SELECT public.session_grant('regress_session_monitor', 'monitor');
SELECT public.session_revoke('regress_session_monitor', 'monitor');
SELECT public.session_key_generate() AS key \gset
SELECT public.session_key_activate(:key);
SELECT public.session_key_revoke(:active);
SELECT sessions_deleted FROM public.session_cleanup();

-- The same in a new connection, whose first calls meet the hostile path
\c -
CALL test.shadow_in_pg_temp();
LOAD 'session_manager';
SET session_manager.max_sessions_per_user = 1;
SET search_path = hostile, pg_catalog;
SET ROLE regress_session_app;
SELECT 'created' AS first FROM public.session_create('carol');
SELECT session_id, session_token FROM public.session_create('carol', '{"n": 1}') \gset c_
SELECT data FROM public.session_get(:'c_session_token');
SELECT version, data FROM public.session_update(:'c_session_token', '{"n": 2}');
SELECT public.session_update_user('carol', '{"n": 3}');
SELECT status FROM public.session_refresh(:'c_session_token');
SELECT is_current FROM public.session_list('carol', :'c_session_token');
SELECT event FROM public.session_history(:'c_session_id');
SELECT public.session_active_count();
SELECT sessions_deleted, partitions_created FROM public.session_cleanup();
SELECT public.session_invalidate_all('carol');
SET ROLE regress_session_admin;
SELECT public.session_export('carol') AS export \gset
SELECT public.session_erase('carol');
SELECT count OPERATOR(pg_catalog.>) 0 AS info FROM (SELECT pg_catalog.count(*) FROM public.session_info()) AS i;
RESET ROLE;

-- A role that may create in public puts its traps there: the extension's
-- schema is no safer a place, and does not need to be.
RESET search_path;
SET client_min_messages = error;
DO $$
DECLARE
	f record;
BEGIN
	FOR f IN
		SELECT p.oid::regprocedure AS f FROM pg_proc AS p WHERE pronamespace = 'hostile'::regnamespace
		  AND NOT EXISTS (SELECT FROM pg_proc AS x WHERE x.pronamespace = 'public'::regnamespace AND x.proname = p.proname AND x.proargtypes = p.proargtypes)
		  AND proname IN ('now', 'clock_timestamp', 'lower', 'length', 'format', 'to_char', 'date_trunc', 'set_config', 'nextval', 'jsonb_build_object', 'uuid_send', 'get_byte', 'octet_length', 'int8inc', 'texteq', 'uuid_eq', 'timestamptz_lt', 'quote_ident')
	LOOP
		EXECUTE format('ALTER FUNCTION %s SET SCHEMA public', f.f);
	END LOOP;
	FOR f IN SELECT o.oid::regoperator AS o FROM pg_operator AS o WHERE oprnamespace = 'hostile'::regnamespace AND oprname IN ('=', '<', '>', '<=', '>=', '+', '-', '<>', '~', '||')
	LOOP
		EXECUTE format('ALTER OPERATOR %s SET SCHEMA public', f.o);
	END LOOP;
END
$$;
RESET client_min_messages;
\c -
CALL test.shadow_in_pg_temp();
SET search_path = public, pg_catalog;
SELECT 1 + 1;
SET ROLE regress_session_app;
SELECT session_id, session_token FROM session_create('dave', '{"n": 1}') \gset d_
SELECT data FROM session_get(:'d_session_token');
SELECT version, data FROM session_update(:'d_session_token', '{"n": 2}');
SELECT session_update_user('dave', '{"n": 3}');
SELECT status FROM session_refresh(:'d_session_token', true);
SELECT event FROM session_history(:'d_session_id');
SELECT session_active_count(user_id => 'dave');
SELECT sessions_deleted FROM session_cleanup();
SELECT session_invalidate_all('dave');
SET ROLE regress_session_admin;
SELECT session_export('dave') AS export \gset
SELECT session_erase('dave');
SELECT session_reencrypt();
RESET ROLE;

SET search_path = pg_catalog, public;
SET client_min_messages = error;
DO $$
DECLARE
	o record;
BEGIN
	FOR o IN SELECT op.oid::regoperator AS op FROM pg_operator AS op JOIN pg_proc AS p ON p.oid = oprcode
		WHERE oprnamespace = 'public'::regnamespace AND prosrc LIKE '%hostile%' LOOP
		EXECUTE format('DROP OPERATOR %s', o.op);
	END LOOP;
	FOR o IN SELECT p.oid::regprocedure AS op FROM pg_proc AS p WHERE pronamespace = 'public'::regnamespace AND prosrc LIKE '%hostile%' LOOP
		EXECUTE format('DROP FUNCTION %s CASCADE', o.op);
	END LOOP;
END
$$;
DROP SCHEMA hostile CASCADE;
RESET client_min_messages;
RESET search_path;
SELECT session_revoke('regress_session_app', 'app'), session_revoke('regress_session_admin', 'admin');
