"""What is done with stores: convert, compact, export, verify."""
