"""Use cases, without HTTP: add, delete and search images, manage tasks, wait for tasks."""
