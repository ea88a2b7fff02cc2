"""Writes the table of docs/STATISTICS.md from the catalog: `python docs/statistics_table.py`."""

from pathlib import Path

from augnet.storage.catalog import CATALOG

PAGE = Path(__file__).with_name("STATISTICS.md")
BEGIN, END = "<!-- table: python docs/statistics_table.py -->\n", "<!-- end of table -->\n"


def table() -> str:
    """The catalog as Markdown, a line per statistic."""
    lines = ["| column | type | unit | what it is | worse end | source |", "|---|---|---|---|---|---|"]
    for entry in CATALOG:
        kind = str(entry.type).replace("<item: ", " of ").rstrip(">")
        cells = (f"`{entry.name}`", kind, entry.unit, entry.meaning, entry.worst or "", entry.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its table renewed."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
