"""The one door to other libraries' internals: a file a library, each with a contract test."""
