"""Transports: the sockets that delivery writes to, apart from the native one of the server."""
