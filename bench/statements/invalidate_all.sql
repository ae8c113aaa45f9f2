SELECT session_invalidate_all('everywhere');
