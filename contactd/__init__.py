"""contactd: every call becomes a ticket and reaches the engineer on duty."""
