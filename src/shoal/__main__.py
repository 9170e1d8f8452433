"""`python -m shoal` is `shoal`."""

import os

# Pydantic would look for plugins in the metadata of every package that is installed, which help would feel.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from shoal.cli import entry

if __name__ == "__main__":
    entry()
