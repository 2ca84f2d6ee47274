"""Execute the notebook of docs/ in an empty folder and write it back with what it said: `make notebook`."""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "own_objectives.ipynb"
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def main() -> None:
    """Execute every cell; the first error ends it, and leaves the notebook as it was."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # the program beside this interpreter is the one that the cells call
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["DS_ACCELERATOR"] = "cpu"  # else deepspeed says on the same stream that it found no other
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=900, resources=resources, coalesce_streams=True).execute()
        for cell in (one for one in notebook.cells if one.cell_type == "code"):
            cell.get("metadata", {}).pop("execution", None)
            # libraries warn of their own there, with paths; what commands say is on the other stream
            cell["outputs"] = [one for one in cell.get("outputs", []) if one.get("name") != "stderr"]
            for output in cell["outputs"]:
                if "text" in output:
                    output["text"] = _COLOUR.sub("", output["text"]).replace(f"{folder}/", "")
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: executed, {len(notebook.cells)} cells")


if __name__ == "__main__":
    main()
