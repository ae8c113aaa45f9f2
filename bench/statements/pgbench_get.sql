\set i random(1, :rows)
SELECT g.* FROM bench.token t, session_get(t.digest) g WHERE t.i = :i;
