"""``python -m sipo_pl`` is the console script ``sipo_pl``."""

from sipo_pl.cli.main import entry

if __name__ == "__main__":
    entry()
