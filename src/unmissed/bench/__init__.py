"""``unmissed bench``: what a delivery, a connect and a recovery cost the server, measured from another process."""
