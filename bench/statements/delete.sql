DELETE FROM bench.session WHERE ctid = ANY (ARRAY(
	SELECT ctid FROM bench.session WHERE sweep_at <= now()
	ORDER BY sweep_at LIMIT 1000));
