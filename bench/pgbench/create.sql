\set k :k + 1
SELECT user_id, ip, user_agent, data, auth, session_id, verifier FROM bench.login WHERE k = :k \gset
SELECT * FROM session_create(:user_id, :data, NULL, :ip, :user_agent, NULL, :auth);
