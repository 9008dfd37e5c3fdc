"""How much one caller, and all callers together, may ask of the service."""
