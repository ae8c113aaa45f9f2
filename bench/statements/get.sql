SELECT * FROM session_get($1);
