"""Who stamps and stores messages."""
