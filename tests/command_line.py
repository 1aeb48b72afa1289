"""The command line, called as a person calls it but in this process."""

from ftlab import cli


def ftlab(capsys, *arguments) -> tuple[int, str, list[str]]:
    """Exit code, stdout, and the lines of stderr without those that a bar would be on a terminal."""
    try:
        code = cli.main(list(map(str, arguments)))
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr()
    return code, said.out, [line for line in said.err.splitlines() if not line.endswith("...")]
