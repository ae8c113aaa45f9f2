SELECT * FROM bench.pgcrypto_get_fast($1);
