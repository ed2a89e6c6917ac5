"""Datasets on disk: formats, the sources they are made from, and the jobs that make them."""

from prunekd.store.format.store import STORE_FILE, Payloads, Split, Store, open_store

__all__ = ["STORE_FILE", "Payloads", "Split", "Store", "open_store"]
