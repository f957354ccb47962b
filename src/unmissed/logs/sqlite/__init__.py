"""The log in an SQLite file: one process stamps messages, and its epoch outlives the process."""
