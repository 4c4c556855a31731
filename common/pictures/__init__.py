"""From bytes to a signature."""
