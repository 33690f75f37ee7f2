"""tuning room."""
