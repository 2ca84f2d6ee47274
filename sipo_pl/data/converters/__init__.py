"""Converters: one raw data schema each, into pairs."""
