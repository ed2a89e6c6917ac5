"""From a store to batches: plan, views, readers."""
