"""Where processes of a command put the sockets by which they talk: a path that systems take, however long TMPDIR is."""

import os
import tempfile
from multiprocessing import util

LONGEST_PATH = 103  # bytes of a Unix socket's path, on every system
NAME = len("/pymp-xxxxxxxx")  # of the folder that multiprocessing makes for its sockets
LONGEST_FOLDER = LONGEST_PATH - NAME - len("/listener-xxxxxxxx")
OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


def settle_sockets() -> bool:
    """Let `multiprocessing` make the folder of its sockets in a place whose path is short; return whether there is one.

    It keeps the folder that it first made. By itself it makes it where TMPDIR says, and fails where that is long.
    """
    usual = tempfile.gettempdir()
    places = (place for place in (usual, *OTHERS) if len(os.fsencode(place)) <= LONGEST_FOLDER)
    for place in places:
        tempfile.tempdir = place
        try:
            return len(os.fsencode(util.get_temp_dir())) <= LONGEST_FOLDER + NAME
        except OSError:  # nothing may be written there
            continue
        finally:
            tempfile.tempdir = usual
    return False
