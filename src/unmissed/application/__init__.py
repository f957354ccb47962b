"""What an application adds to its manager: commands, hooks and typed messages."""
