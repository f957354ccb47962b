"""A cache of verified tokens, so that a reconnect needs no signature check."""

import sys

from unmissed.core.audience import Identity

MAX_VERIFIED_BYTES = 16 * 1024 * 1024

_ENTRY_BYTES = 256
"""Bytes of the Identity, its expiry and the dict entry."""


class VerifiedTokens:
    """The identities of verified tokens, bounded in bytes. The oldest token is evicted first."""

    def __init__(self, *, max_bytes: int = MAX_VERIFIED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._identities: dict[str, Identity] = {}

    def find(self, token: str, *, now: float) -> Identity | None:
        """Return the identity of a token that was kept and is valid now (Unix seconds), or None."""
        identity = self._identities.get(token)
        if identity is None:
            return None
        if identity.expires_at is not None and identity.expires_at <= now:
            self._forget(token)
            return None
        return identity

    def keep(self, token: str, identity: Identity) -> None:
        """Add a token, and evict the oldest ones that are over the limit."""
        self._forget(token)
        self._identities[token] = identity
        self._bytes += _size(token, identity)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._identities)))

    def _forget(self, token: str) -> None:
        identity = self._identities.pop(token, None)
        if identity is not None:
            self._bytes -= _size(token, identity)


def _size(token: str, identity: Identity) -> int:
    """Return the bytes that an entry holds. Many short scopes and topics take more memory than the token's text."""
    held = [token, identity.user_id, identity.scopes, *identity.scopes]
    if identity.topics:
        held += [identity.topics, *identity.topics]
    return _ENTRY_BYTES + sum(map(sys.getsizeof, held))
