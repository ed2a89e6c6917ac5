"""What lies on disk: FFCV's `.beton` file, the index beside it, and the store that holds both."""
