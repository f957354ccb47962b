"""Small applications to read and run."""
