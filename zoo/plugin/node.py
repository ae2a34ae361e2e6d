"""The node of a model's tree: what the names of components give in Python, and what a tree in TOML is read as."""

from __future__ import annotations

from collections.abc import Iterator
from keyword import iskeyword
from typing import Any

from zoo.base.structs import Struct

LINE = 100
"""Characters of a line of Python beyond which a tree is written on several."""

SHORT = (("hybrid.alternate", "zoo.alternate"), ("hybrid.joint", "zoo.joint"))
"""Components that `zoo` has a function of its own for."""


class Node(Struct, frozen=True):
    """One node of a model's tree: a component, its arguments, and its children.

    `zoo.part`, `zoo.alternate`, `zoo.joint` and the names of a plugin's components make one; TOML is read as the same.

    Attributes:
        use: Full component name, "plugin.component".
        args: The factory's own arguments. A value that is itself a `Node` (or a list of them)
            reaches the factory as a builder (or a list of builders).
        of: The children of a combinator; they reach the factory as `parts`.
        defaults: Of a run's tree: the defaults that the factory's arguments had when the run was recorded.
            They are no part of the TOML of the tree.
    """

    use: str
    args: dict[str, Any] = {}
    of: tuple[Node, ...] = ()
    defaults: dict[str, Any] = {}

    def children(self) -> list[tuple[str, Node]]:
        """All direct children, each with the key (as in TOML) that leads to it."""
        children = [(f"of[{i}]", child) for i, child in enumerate(self.of)]
        for key, value in self.args.items():
            if isinstance(value, Node):
                children.append((key, value))
            elif isinstance(value, list):
                children += [(f"{key}[{i}]", v) for i, v in enumerate(value) if isinstance(v, Node)]
        return children

    def walk(self, place: str = "build") -> Iterator[tuple[str, Node]]:
        """This node and all below it in the order of the TOML, each with its place: "build.body.of[0]"."""
        yield place, self
        for key, child in self.children():
            yield from child.walk(f"{place}.{key}")

    def plain_args(self) -> dict[str, Any]:
        """The arguments that hold no component."""
        nested = {key.partition("[")[0] for key, _ in self.children()}
        return {key: value for key, value in self.args.items() if key not in nested}

    def to_table(self) -> dict[str, Any]:
        """The node as it stands in TOML; `node_from_table` reads it back."""

        def plain(value: Any) -> Any:
            if isinstance(value, Node):
                return value.to_table()
            return [plain(v) for v in value] if isinstance(value, list | tuple) else value

        table: dict[str, Any] = {"use": self.use}
        table |= {key: plain(value) for key, value in self.args.items()}
        return table | ({"of": [child.to_table() for child in self.of]} if self.of else {})

    def to_toml(
        self,
        name: str = "",
        *,
        summary: str = "",
        family: str = "hybrid",
        recipe: str = "default",
        dataset: str | None = None,
    ) -> str:
        """The tree as text for a registry file.

        A tree that is not a classifier is put into one, as `zoo.create` and `zoo.train` do.

        Args:
            name: of the model; "": only the line `build = ...`, for a model's table that is there already.
            summary: what the model is, in one line; "": its components.
            family: the family that it is listed under.
            recipe: its default recipe. dataset: its default dataset; None: that of models which name none.
        Returns:
            TOML that ends with a newline. `FILE.toml#NAME` means the model once it is in a file.
        Raises:
            InputError: no such name can be given, or the tree begins with a stem or a head.

        Example:
            >>> print(zoo.part("cnn.residual", widths=[32]).to_toml())
            build = { use = "hybrid.classifier", body = { use = "cnn.residual", widths = [32] } }
            <BLANKLINE>
        """
        from zoo.base.door import call

        given = {"summary": summary, "family": family, "recipe": recipe, "dataset": dataset}
        text: str = call("zoo.catalogue.parts:to_toml")(self, name, **given)
        return text

    def __repr__(self) -> str:
        """The Python that makes the tree."""
        return _python(self, "")

    def _repr_html_(self) -> str:
        """The drawn tree, as notebooks show it."""
        from zoo.base.door import call

        text: str = call("zoo.catalogue.parts:to_html")(self)
        return text


def _python(value: Any, margin: str) -> str:
    """Python for a value, on several lines where one would be long; `margin` is what its own line begins with."""
    deeper = f"{margin}    "
    if isinstance(value, Node):
        head, given = dict(SHORT).get(value.use), [_python(child, deeper) for child in value.of]
        start = f"{head}(" if head else "zoo.part("
        given = given if head else [repr(value.use), *given]
        given += [_keyword(key, _python(v, deeper)) for key, v in value.args.items()]
        end = ")"
    elif isinstance(value, list) and any(isinstance(v, Node) for v in value):
        start, given, end = "[", [_python(v, deeper) for v in value], "]"
    else:
        return repr(value)
    line = f"{start}{', '.join(given)}{end}"
    if len(margin) + len(line) <= LINE and "\n" not in line:
        return line
    return "\n".join((start, *(f"{deeper}{one}," for one in given), f"{margin}{end}"))


def _keyword(key: str, value: str) -> str:
    return f"{key}={value}" if key.isidentifier() and not iskeyword(key) else f"**{{{key!r}: {value}}}"
