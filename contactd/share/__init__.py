"""contactd-share: what the user starts to share their screen. It runs on their machine, alone."""
