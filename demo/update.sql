\set n random(1, :sessions)
\set page random(1, 1000)
SELECT digest, jsonb_build_object('page', :page::int) AS patch FROM demo.cookie WHERE n = :n \gset
SELECT version FROM session_update(:digest, :patch);
