SELECT session_get_json($1);
