"""Stacked LoRA: K adapters over one base in one forward."""
