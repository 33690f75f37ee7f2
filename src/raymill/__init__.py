"""raymill."""
