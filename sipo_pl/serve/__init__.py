"""A server of fused policies: OpenAI's HTTP interface with a weight per request, and a page beside it."""
