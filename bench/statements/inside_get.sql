SELECT count(g.session_id) FROM bench.few, session_get(few.digest) AS g WHERE $1::text <> '';
