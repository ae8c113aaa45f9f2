SELECT session_invalidate($1);
