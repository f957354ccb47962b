"""Logs: they stamp messages and store them."""
