"""The FastAPI side: routes, authentication, errors."""
