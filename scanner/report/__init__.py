"""What `patrol scan` says of what it found: one file a format."""
