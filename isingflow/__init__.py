"""isingflow."""
