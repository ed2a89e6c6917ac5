"""Datasets on disk: sources, conversion to FFCV's .beton, the index beside it."""
