\set i random(1, 1000)
SELECT g.* FROM bench.live t, session_get(t.digest) g WHERE t.i = :i;
