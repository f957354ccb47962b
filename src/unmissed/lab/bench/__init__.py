"""``unmissed bench``: measures, from another process, what deliveries, handshakes and recoveries cost the server."""
