"""Memory from shapes alone: what fits is said before a weight is read.

Nothing here but ``trace.py`` imports torch.
"""
