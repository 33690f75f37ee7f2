"""The command line: one module a group of verbs, loaded when its verb is called."""

from .main import main

__all__ = ["main"]
