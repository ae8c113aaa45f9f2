SELECT count(g.data) FROM unnest($1::text[]) t, session_get(t) g
HAVING count(g.data) = 100;
