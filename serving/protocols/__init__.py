"""How requests and answers are written; one file a protocol, all of them over the same desk."""
