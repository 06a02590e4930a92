"""Who must hear of a ticket, and when."""
