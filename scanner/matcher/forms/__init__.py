"""How a token may be written: each file turns stretches of data into text that can be read."""
