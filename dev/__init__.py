"""Programs for a developer's machine without Docker: the stack, a Redis, an Elasticsearch node."""
