"""What the tests of the manifests share: how they are rendered, and what is wrong with rendered ones."""
