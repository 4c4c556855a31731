"""A real Kubernetes control plane on loopback, without Docker and without containers: for tests, never for data."""
