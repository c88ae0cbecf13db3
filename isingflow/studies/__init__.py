"""Studies: one command at many sizes, temperatures and seeds, run to its end whatever happens on the way."""
