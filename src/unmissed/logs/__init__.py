"""Logs: who stamps messages and where they are stored."""
