SELECT count(g.data) FROM unnest($1::text[]) t, bench.pgcrypto_get_fast(t) g
HAVING count(g.data) = 100;
