"""Reports: what a sweep's results say, as tables, figures and a page. Nothing here trains."""
