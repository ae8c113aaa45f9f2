SELECT last_value - floor(random() * :active)::integer AS i FROM bench.head \gset
SELECT i, digest FROM bench.token WHERE i <= :i ORDER BY i DESC LIMIT 1 \gset
UPDATE bench.token SET digest = session_token_digest(r.session_token) FROM session_refresh(:digest, true) r WHERE i = :i AND r.session_token IS NOT NULL;
