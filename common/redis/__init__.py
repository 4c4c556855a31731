"""Redis: clients, scripts, and its clock."""
