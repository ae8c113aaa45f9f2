SELECT * FROM session_refresh($1, rotate => true);
