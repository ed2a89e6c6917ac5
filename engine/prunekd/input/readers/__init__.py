"""Readers: engines that turn an epoch's plan into batches."""
