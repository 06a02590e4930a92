"""Asterisk: AMI, FastAGI, and the PBX's own records."""
