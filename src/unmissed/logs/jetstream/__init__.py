"""A shared log in a NATS JetStream stream, whose sequence numbers are the numbers of the messages."""
