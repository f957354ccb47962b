"""Security: tokens, origins, and logs without tokens."""
