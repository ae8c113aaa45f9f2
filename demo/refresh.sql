\set n random(1, :sessions)
SELECT digest FROM demo.cookie WHERE n = :n \gset
SELECT status, expires_at FROM session_refresh(:digest);
