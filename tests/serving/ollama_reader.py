"""What Ollama makes of a Modelfile: its parser, and the part of Go's templates that a Modelfile of ours uses.

Written from the documentation of both, and compared with Go's own `text/template` on every template of the tests.
"""

import itertools
import re

ROLES = ("system", "user", "assistant")
ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


def commands(text):
    """Return the commands of a Modelfile as (name, value), where the name of a parameter is its own.

    A value ends with its line, unless it begins with quotes: then it ends at a line end after the same quotes.
    Characters that do not print are dropped.
    """
    found = []
    lines = iter(re.split("(?<=\n)", text))
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        name, value = line.split(" ", 1)
        assert name in ("FROM", "TEMPLATE", "SYSTEM", "PARAMETER"), f"Ollama knows no {name}"
        if name == "PARAMETER":
            name, value = value.split(" ", 1)
        quotes = next((quotes for quotes in ('"""', '"') if value.startswith(quotes)), "")
        while quotes and not (len(value.strip()) >= 2 * len(quotes) and value.strip().endswith(quotes)):
            value += next(lines)
        value = value.strip().removeprefix(quotes).removesuffix(quotes)
        found.append((name, "".join(one for one in value if one.isprintable() or one in "\n\t")))
    return found


def prompt(modelfile, messages):
    """Return the text that Ollama gives to the model for `messages`.

    It joins all system texts for `.System`, and messages of one role that follow each other (template/template.go).
    """
    said = dict(commands(modelfile))
    if "SYSTEM" in said and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": said["SYSTEM"]}, *messages]
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    messages = [
        {"role": role, "content": "\n\n".join(one["content"] for one in some)}
        for role, some in itertools.groupby(messages, key=lambda one: one["role"])
    ]
    tree, rest = _block(iter(_tokens(said["TEMPLATE"])))
    assert rest is None, f"{rest!r} ends nothing"
    return _render(tree, {"System": system, "Messages": messages})


def _tokens(template):
    """The texts and actions of a template in order, each with whether it is an action."""
    for place, piece in enumerate(ACTION.split(template)):
        assert place % 2 or ("{{" not in piece), f"{piece!r} has the beginning of an action"
        yield piece, bool(place % 2)


def _block(tokens):
    """Return the nodes up to an `else` or `end`, and that action (None at the end of the template)."""
    nodes = []
    for piece, is_action in tokens:
        if not is_action:
            nodes.append(("text", piece))
        elif piece.startswith(("else", "end")):
            return nodes, piece
        elif piece.startswith("range "):
            inside, _ = _block(tokens)
            nodes.append(("range", piece.removeprefix("range "), inside))
        elif piece.startswith("if "):
            nodes.append(_if(piece.removeprefix("if "), tokens))
        else:
            nodes.append(("value", piece))
    return nodes, None


def _if(condition, tokens):
    inside, end = _block(tokens)
    if end.startswith("else if "):
        return "if", condition, inside, [_if(end.removeprefix("else if "), tokens)]
    otherwise, _ = _block(tokens) if end == "else" else ([], None)
    return "if", condition, inside, otherwise


def _render(nodes, dot):
    written = []
    for kind, *node in nodes:
        if kind == "text":
            written.append(node[0])
        elif kind == "value":
            written.append(_value(node[0], dot))
        elif kind == "range":
            written += [
                _render(node[1], {"Role": one["role"], "Content": one["content"]}) for one in _value(node[0], dot)
            ]
        else:
            condition, inside, otherwise = node
            written.append(_render(inside if _holds(condition, dot) else otherwise, dot))
    return "".join(written)


def _holds(condition, dot):
    if condition.startswith("eq "):
        _, one, other = condition.split(" ")
        return _value(one, dot) == _value(other, dot)
    return bool(_value(condition, dot))


def _value(expression, dot):
    if expression.startswith('"'):
        assert expression.endswith('"')
        inside = expression[1:-1]
        assert re.fullmatch(r"(?:\\u[0-9a-f]{4}|\\U[0-9a-f]{8}|[a-z])+", inside)
        return re.sub(r"\\[uU]([0-9a-f]+)", lambda found: chr(int(found[1], 16)), inside)
    return dot[expression.removeprefix(".")]
