"""What `patrol up` and `patrol demo` bring along, so that no server is needed."""
