"""Remote help: the broker between a user's screen, which only they can share, and an engineer."""
