"""Running the service: migrate, roles, backup, restore, integrity, health, metrics, the worker."""
