"""Sweeps over keep ratios and the page that shows them."""
