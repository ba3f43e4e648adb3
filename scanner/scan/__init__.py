"""The first use case: a claimed scan becomes verified leaks; one file a step."""
