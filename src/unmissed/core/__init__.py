"""The pure core: messages, frames, the window and the wire format. No await, no clock, no socket, no framework."""
