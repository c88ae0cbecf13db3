"""A file per flow: its frozen settings and what they build."""
