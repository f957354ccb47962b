"""A log in PostgreSQL, and the outbox that applications publish to in their transactions."""
