SET session_manager.new_device_events = on;
SELECT * FROM session_create($1, $2, NULL, $3, $4, NULL, $5);
