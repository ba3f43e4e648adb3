"""Where pushes come in."""
