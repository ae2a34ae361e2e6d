"""One model, as `zoo.info` gives it: its tree, recipes, results and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.drawing import Picture
from zoo.base.paths import local_path
from zoo.base.text import printable
from zoo.catalogue.describe import details_of
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, Node
from zoo.catalogue.tree import tree_lines
from zoo.catalogue.tree_check import check_tree


@dataclass(frozen=True, repr=False, eq=False)
class ModelInfo:
    """One model of the catalogue.

    Attributes:
        name: as it is listed. model: what the catalogue says of it.
        registry: the catalogue that it was found in, with the recipes, sources and components that it names.
        counts: what building it gave: `parameters`, `flops` of one image, `sizes` (in_channels, height and width in
            pixels, num_classes), and `published_counts`; empty if it was not built.
    """

    name: str
    model: Model
    registry: Registry
    counts: Mapping[str, Any]

    @property
    def tree(self) -> Node:
        """Its tree of components."""
        return self.model.build

    def as_dict(self) -> dict[str, Any]:
        """All that is known of it: what `zoo info --json` prints."""
        return details_of(self.name, self.model, self.registry) | dict(self.counts)

    def lines(self, *, ascii_only: bool = False) -> list[tuple[str, str]]:
        """The tree as drawn in a terminal, a line for each component: (line, the distribution that offers it)."""
        return list(tree_lines(self.tree, self.registry, ascii_only=ascii_only))

    def check(self) -> None:
        """Refuse components and arguments that are not there, as far as can be told without building.

        A tree may name components of plugins that are not installed here.

        Raises:
            InputError: says where in the tree, and what is allowed.
        """
        check_tree(self.tree, self.registry, f"{self.name}: build")

    def picture(self, path: str | Path | None = None) -> Picture:
        """The tree as boxes through which an image flows from top to bottom.

        Args:
            path: the file to write, .png (two pixels for each CSS pixel) or .svg; None: an SVG, and nothing is written.
        Raises:
            InputError: another suffix. WriteError: the file cannot be written.
        """
        from zoo.catalogue.picture import as_svg, draw_tree, in_words

        components = self.registry.components
        alt = in_words(self.tree, components)
        if path is None:
            return Picture(as_svg(self.tree, components), "svg", alt=alt)
        file = draw_tree(local_path(path), self.tree, components)
        return Picture(file.read_bytes(), file.suffix.lower().removeprefix("."), file, alt)

    def __repr__(self) -> str:
        """The name, what it is, and the tree."""
        lines = [f"{self.name}  {self.model.summary}".rstrip(), *(line for line, _ in self.lines())]
        return printable("\n".join(lines))

    def _repr_html_(self) -> str:
        """The name, what it is, and the drawn tree."""
        import html

        return f"<p>{html.escape(f'{self.name}: {self.model.summary}')}</p>{self.picture()._repr_html_()}"
