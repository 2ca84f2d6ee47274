"""``python -m sipo_pl`` is the console script ``sipo_pl``."""

from sipo_pl.storage.stopping import note_early

if __name__ == "__main__":
    note_early()  # before all else is imported

    from sipo_pl.cli.main import entry

    entry()
