"""What the service does for a request, without HTTP: add images, manage tasks, wait for tasks, read query images."""
