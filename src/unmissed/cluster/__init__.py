"""The nodes that share a log: their notes, who is connected to them, and logouts on all of them."""
