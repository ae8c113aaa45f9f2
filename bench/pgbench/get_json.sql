\set i random(1, :rows)
SELECT digest, session_id FROM bench.token WHERE i = :i \gset
SELECT session_get_json(:digest);
