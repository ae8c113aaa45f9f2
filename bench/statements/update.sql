SELECT * FROM session_update($1, jsonb_build_object('seen', clock_timestamp()));
