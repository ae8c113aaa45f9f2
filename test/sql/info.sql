--
-- session_info
--
-- The keys are the same whether the library is preloaded or not, and so are
-- the values that do not speak of that.
SELECT key, CASE WHEN key IN ('clock', 'library_version', 'preloaded', 'log_redaction', 'workers', 'last_pass', 'resealing', 'event_partitions', 'next_sweep') OR key LIKE 'errors%' THEN '...' ELSE value END AS value FROM session_info();
SELECT value = extversion AS version FROM session_info(), pg_extension WHERE key = 'version' AND extname = 'session_manager';
SELECT count(*) FROM session_info() WHERE value LIKE '%' || (SELECT path FROM test.key_file) || '%';
SELECT count(DISTINCT value) = 1 AS same FROM session_info() WHERE key IN ('version', 'library_version');
