"""The pure core: messages, frames, the window and the wire. No await, no clock, no socket, no framework."""
