SELECT last_value - floor(random() * :active)::integer AS i FROM bench.head \gset
SELECT i, digest FROM bench.token WHERE i <= :i ORDER BY i DESC LIMIT 1 \gset
SELECT * FROM session_refresh(:digest);
