"""Delivery: from the window to every connection, by positions and flushes."""
