SELECT * FROM bench.pgcrypto_get_default($1);
