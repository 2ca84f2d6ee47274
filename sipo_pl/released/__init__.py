"""Accidents of the authors' released code, each behind a switch of its own."""
