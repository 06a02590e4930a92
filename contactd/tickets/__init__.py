"""The domain: what a ticket is and what can be done to it."""
