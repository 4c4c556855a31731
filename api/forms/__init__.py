"""From a request to typed values, or an error that names the field."""
