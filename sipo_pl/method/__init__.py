"""The paper: fusion, divergences, losses, selection, weights, seeds. Nothing but torch."""
