"""One pass of a teacher over a store: scores and soft labels."""
