"""The FastAPI side: authentication, routes and errors."""
