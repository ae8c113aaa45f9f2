\set n random(1, :sessions)
SELECT digest FROM demo.cookie WHERE n = :n \gset
SELECT user_id, data FROM session_get(:digest);
