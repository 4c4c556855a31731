"""Where signatures live: one interface, two stores."""
