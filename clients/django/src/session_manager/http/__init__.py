"""A request and its session: the cookie, the address, CSRF, and what is known of the session."""
