"""Which evaluations judge on annotated images, not on sets with labels."""

# a room of its own: what imports the table of evaluations would be done again at each edit of it
ON_BOXES = frozenset({"detect", "multilabel"})
