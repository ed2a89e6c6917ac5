"""Crops of JPEG files through machine code written by hand; README.md says what, why, and how to do without."""
