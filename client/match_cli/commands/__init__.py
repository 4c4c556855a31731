"""The commands of `match`, one module for each subject."""
