"""The checks of our prose and names, described in docs/glossary.md."""
