"""The laboratory: processes, engines and networks with faults, for ``unmissed verify``, ``unmissed bench`` and tests.

``verify`` disturbs a server and judges the histories of its clients. ``bench`` measures what a server costs.
"""
