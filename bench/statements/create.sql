SELECT * FROM session_create($1, $2, NULL, '192.0.2.1', 'Mozilla/5.0', NULL, '{"amr": ["pwd", "otp"], "acr": "aal2"}');
