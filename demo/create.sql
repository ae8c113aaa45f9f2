\set n random(1, 1000000)
SELECT demo.user_id(:n) AS user_id, demo.profile(:n) AS profile \gset
SELECT session_id FROM session_create(:user_id, :profile, NULL, '198.51.100.7', 'pgbench');
