"""The one training loop: what it is fed, what it minimises, and how it survives being interrupted."""
