"""What goes out to addresses of strangers: downloads and webhooks."""
