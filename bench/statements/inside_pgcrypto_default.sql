SELECT count(g.session_id) FROM bench.few, bench.pgcrypto_get_default(few.token) AS g WHERE $1::text <> '';
