"""monitoring room."""
