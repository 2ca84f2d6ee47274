"""Rows, templates, converters and DataModules."""
