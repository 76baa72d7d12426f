"""From a resource to frozen records: schema, defaults, methods, files."""
