"""Where tokens are routed, what experts specialise in, and what those that were not chosen would have written."""
