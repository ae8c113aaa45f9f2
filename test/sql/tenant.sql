-- What concerns one tenant reads that tenant's sessions alone, and the index that
-- it reads them off makes no write dearer but the login.
SELECT count(session_id) FROM generate_series(1, 300) AS u, session_create('t' || u, tenant_id => 'tenant-' || u % 100);
SELECT count(session_id) FROM generate_series(1, 100) AS u, session_create('n' || u);
CREATE VIEW test.work AS
SELECT s.seq_scan, s.seq_tup_read, s.idx_tup_fetch, s.n_tup_upd - s.n_tup_hot_upd AS updates_not_hot
FROM pg_stat_xact_all_tables s WHERE relid = 'user_sessions'::regclass;
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT session_active_count(tenant_id => 'tenant-7');
SELECT seq_scan, seq_tup_read, idx_tup_fetch FROM test.work;
ROLLBACK;
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT session_invalidate_tenant('tenant-7');
SELECT seq_scan, seq_tup_read, idx_tup_fetch FROM test.work;
SELECT session_active_count(tenant_id => 'tenant-7') AS ended, session_active_count(tenant_id => 'tenant-8') AS others,
	session_active_count(tenant_id => 'none') AS unknown, session_active_count(tenant_id => 'tenant-8', user_id => 't8') AS of_both;
SELECT seq_scan FROM test.work;
SELECT session_active_count();
ROLLBACK;
-- who has no tenant is not in the index
SELECT pg_get_expr(indpred, indrelid) FROM pg_index WHERE indexrelid = 'user_sessions_tenant_id_idx'::regclass;
TRUNCATE user_sessions, session_events;
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT session_token AS token FROM session_create('hot', tenant_id => 'hot') \gset
SELECT version FROM session_update(:'token', '{"a": 1}');
SELECT status FROM session_refresh(:'token');
SELECT status, session_token AS token FROM session_elevate(:'token', '{"method": "otp"}') \gset
SELECT session_update_user('hot', '{"b": 1}');
SELECT session_invalidate(:'token');
SELECT updates_not_hot FROM test.work;
ROLLBACK;
DROP VIEW test.work;
