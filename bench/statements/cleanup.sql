SELECT sessions_deleted FROM session_cleanup();
