"""Student and teacher architectures by name."""
