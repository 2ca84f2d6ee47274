"""Parts of the report: what a run measured, as numbers, tables, pictures and a page."""
