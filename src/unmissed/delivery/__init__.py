"""Delivery: writes the messages in the window to every connection, from its position on."""
