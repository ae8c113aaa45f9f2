SELECT * FROM session_refresh($1);
