SELECT count(g.data) FROM unnest($1::text[]) t, bench.pgcrypto_get_default(t) g
HAVING count(g.data) = 100;
