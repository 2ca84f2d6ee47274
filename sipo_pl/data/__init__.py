"""Row schemas, readers, converters, splits, mixture, conflicts; DataModules."""
