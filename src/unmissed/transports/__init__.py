"""Transports for any ASGI server: portable implementations of ``Socket``, and how they learn of a shutdown."""
