"""What the student learns from: teachers, objectives, alpha."""
