"""Files that appear whole, manifests, hashes, locks; when a command is asked to stop."""
