"""Logs on an engine that several nodes share: Redis, Valkey or NATS JetStream."""
