"""docs/cli.md from the commands themselves: `python -m headrace.cli.reference` prints it."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from headrace.cli import app
from headrace.cli.app import PANELS

HEAD = """\
# The command line

Written by `python -m headrace.cli.reference`; `headrace COMMAND --help` says the same. Results go to standard output,
everything else to standard error. `--json` prints the result, or the error, as JSON. Exit status: 0 done, 1 failed,
2 wrong usage, 3 refused (the system understood and said no; the reason is printed), 130 interrupted. An error is one
message and the next command; `HEADRACE_DEBUG=1` shows where it came from. `headrace --install-completion` completes
commands, pipelines and topics in your shell.
"""


def reference() -> str:
    """The page."""
    root: Any = typer.main.get_command(app)
    parts = [HEAD]
    for panel in PANELS:
        parts.append(f"## {panel}\n")
        parts += [told(name, one) for name, one in root.commands.items() if one.rich_help_panel == panel]
    return "\n".join(parts)


def told(name: str, one: Any) -> str:
    """One command: what it does, an example, its options."""
    arguments = [p for p in one.params if p.param_type_name == "argument"]
    options = [p for p in one.params if p.param_type_name == "option" and p.name != "help"]
    shown = " ".join(p.metavar if p.required or p.metavar.startswith("[") else f"[{p.metavar}]" for p in arguments)
    lines = [f"### headrace {' '.join([name, shown]).strip()}", "", inspect.cleandoc(one.help), ""]
    lines += ["```", one.epilog.removeprefix("Example: [bold]").removesuffix("[/]"), "```", ""]
    for option in options:
        value = "" if option.is_flag else f" {option.metavar or option.opts[0].lstrip('-').upper()}"
        given = option.default not in (None, False, "") and not callable(option.default)
        default = f" (default {option.default:g})" if given and isinstance(option.default, float) else ""
        default = default or (f" (default {option.default})" if given and not option.required else "")
        lines.append(f"- `{', '.join(option.opts)}{value}`: {option.help}{default}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(reference(), end="")
