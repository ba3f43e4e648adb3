"""What may be lost at any time: quicker copies of what the database holds."""
