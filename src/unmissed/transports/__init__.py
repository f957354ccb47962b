"""Transports: implementations of ``Socket`` other than the native one in ``unmissed.server``."""
