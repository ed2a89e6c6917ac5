"""What people bring: datasets on disk, each kind behind one protocol."""

from prunekd.store.sources.layout import Layout
from prunekd.store.sources.registry import SOURCES, open_source, recognise_source, reopen_source
from prunekd.store.sources.source import Source, UnreadableImage

__all__ = ["SOURCES", "Layout", "Source", "UnreadableImage", "open_source", "recognise_source", "reopen_source"]
