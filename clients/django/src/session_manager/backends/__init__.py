"""What SESSION_ENGINE names."""
