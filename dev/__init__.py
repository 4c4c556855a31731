"""What a developer's machine runs without Docker: the stack, a Redis, an Elasticsearch node; no part of the service."""
