"""Positions and flushes: how messages reach the clients that are here."""
