"""Formats the results as tables, and writes them to the README of the broker."""

from pathlib import Path

README = Path(__file__).resolve().parents[2] / "crates" / "kafka-broker" / "README.md"
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"

# The checks of the programs, in the order of the columns.
COLUMNS = {
    "produce": "produce",
    "group": "groups",
    "transactions": "trans&shy;actions",
    "transaction-offsets": "offsets in trans&shy;actions",
    "topics": "topics",
    "partitions": "partitions",
    "configs": "configs",
    "delete-groups": "delete groups",
    "delete-offsets": "delete offsets",
    "delete-records": "delete records",
    "log-dirs": "log dirs",
    "cluster": "cluster",
    "list-transactions": "list trans&shy;actions",
    "offsets": "offsets by time",
}
CELLS = {"ok": "yes", "unsupported": "-", "failed": "**failed**"}


def markdown(clients, programs):
    """Returns the tables. `clients` has the outcomes of each client by column, `programs` pairs of text and outcome."""
    rows = [["client", *COLUMNS.values()], ["---"] * (1 + len(COLUMNS))]
    for client, outcomes in clients.items():
        rows.append([client, *(CELLS[outcomes.get(column, ("failed", ""))[0]] for column in COLUMNS)])
    rows = ["| " + " | ".join(row) + " |" for row in rows]
    rows += ["", "| program | result |", "|---|---|"]
    for program, (status, detail) in programs.items():
        rows.append(f"| {program} | {detail or CELLS[status] if status == 'ok' else CELLS[status]} |")
    return "\n".join(rows)


def update(text):
    readme = README.read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
