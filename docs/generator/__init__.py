"""Pages that are made of the source. Each module reads one part of it, and gives the text of its page."""
