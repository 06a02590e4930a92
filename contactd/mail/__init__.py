"""Mail out, through a smart host."""
