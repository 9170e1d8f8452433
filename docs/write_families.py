"""Put the table of `shoal families` into `docs/families.md`, between the two marks.

python docs/write_families.py
"""

from __future__ import annotations

from pathlib import Path

from shoal.models.families.table import as_table, transformers_version

DOCUMENT = Path(__file__).with_name("families.md")
BEGIN, END = "<!-- table: make families -->", "<!-- end of table -->"


def main() -> None:
    """Replace what is between the marks."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    made_with = f"Shown with transformers {transformers_version()}."
    text = f"{before}{BEGIN}\n\n{made_with}\n\n{as_table().as_markdown()}\n\n{END}{after}"
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
