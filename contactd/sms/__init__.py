"""Texts (SMS): each gateway one module and one line in the table of `gateways`."""
