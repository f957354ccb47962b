"""Publishing in the database transactions of an application."""
