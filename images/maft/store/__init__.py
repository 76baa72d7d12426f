"""Objects in a folder or a bucket, what is committed there, and where it lies."""
