"""A shared log in Redis or Valkey: one Lua script stamps and stores, and every node reads the stream that it fills."""
