"""The endpoints, one file an idea; each has a function that adds its routes to an app."""
