\set user random(1, :users)
INSERT INTO bench.token SELECT nextval('bench.head'), c.session_id, session_token_digest(c.session_token) FROM session_create(bench.user_id(:user), bench.data(:user), NULL, '192.0.2.1', bench.user_agent(), NULL, bench.auth(:user)) c;
