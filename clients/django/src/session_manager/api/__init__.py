"""The REST endpoints: what is accepted, what is answered, and how often."""
