"""The cluster of nodes that share a log: the notes between them, presence, and logouts."""
