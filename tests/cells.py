"""Notebooks as programs for tests: their form, the cells that a name depends on, running those alone."""
from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import matplotlib
import matplotlib.pyplot as plt
from PIL import Image

matplotlib.use("Agg")

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.py"))
FIELD = re.compile(r"^(\w+) = (.*?)  #@param (.*)$", re.M)


def notebook(stem: str) -> Path:
    """The .py half whose name begins with `stem`, such as "02"."""
    return next(path for path in NOTEBOOKS if path.stem.startswith(stem))


@dataclass
class Names(ast.NodeVisitor):
    """What a piece of code needs from before (needs), defines anew (binds) and changes (changes), at its top level."""

    needs: set[str] = field(default_factory=set)
    binds: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    local: frozenset[str] = frozenset()

    @classmethod
    def of(cls, code: str) -> Names:
        names = cls()
        names.visit(ast.parse(code))
        names.needs -= set(dir(builtins))
        return names

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.binds.add(node.id)
        elif node.id not in self.binds | self.local:
            self.needs.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        for part in (node.value, *node.targets):  # the value is read before the name is bound
            self.visit(part)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        self._change(node.target)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._change(target)

    def visit_For(self, node: ast.For) -> None:
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.visit(node.value)
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):  # a method may change
            self._change(node.value.func)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.ctx, ast.Store):
            self._change(node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store):
            self._change(node)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.binds |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.Lambda) -> None:
        inner = Names(local=self.local | self.binds)
        arguments = node.args
        around = *arguments.defaults, *filter(None, arguments.kw_defaults), *getattr(node, "decorator_list", [])
        for part in around:
            self.visit(part)
        inner.binds = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        inner.binds |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a}
        inner.binds |= {node.name} if isinstance(node, ast.FunctionDef) else set()
        for statement in node.body if isinstance(node.body, list) else [node.body]:
            inner.visit(statement)
        self.needs |= inner.needs
        if isinstance(node, ast.FunctionDef):
            self.binds.add(node.name)

    visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        inner = Names(local=self.local | self.binds)
        for part in (*node.bases, *node.body):
            inner.visit(part)
        self.needs |= inner.needs
        self.binds.add(node.name)

    def _comprehension(self, node: ast.ListComp) -> None:
        inner = Names(local=self.local | self.binds)
        for generator in node.generators:
            for part in (generator.iter, generator.target, *generator.ifs):
                inner.visit(part)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            inner.visit(part)
        self.needs |= inner.needs

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _change(self, target: ast.expr) -> None:
        while isinstance(target, (ast.Attribute, ast.Subscript, ast.Call)):
            target = target.func if isinstance(target, ast.Call) else target.value
        if isinstance(target, ast.Name):
            self.changes.add(target.id)
            if target.id not in self.binds | self.local:
                self.needs.add(target.id)


def code_of(path: Path) -> list[str]:
    """The code cells of a notebook."""
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def form_of(path: Path) -> dict[str, tuple[str, str]]:
    """The fields of all forms of a notebook: name -> (value as written, what stands behind #@param)."""
    return {name: (value, kind) for name, value, kind in FIELD.findall("\n".join(code_of(path)))}


def filled_in(code: str, values: Mapping[str, object]) -> str:
    """The code with other values in its form's fields."""
    return FIELD.sub(lambda found: f"{found[1]} = {values[found[1]]!r}" if found[1] in values else found[0], code)


def cells_for(cells: list[str], wanted: Iterable[str]) -> list[str]:
    """Those cells, in order, without which the names in `wanted` would lack their last value."""
    needed, chosen, modules = set(wanted), [], set()
    for code in cells:
        modules |= {(alias.asname or alias.name).split(".")[0] for node in ast.walk(ast.parse(code))
                    if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    for code in reversed(cells):
        names = Names.of(code)
        hit = needed & (names.binds | names.changes - modules)
        imports = "\n".join(ast.unparse(s) for s in ast.parse(code).body if isinstance(s, (ast.Import, ast.ImportFrom)))
        if hit and hit <= Names.of(imports).binds:  # nothing else of the cell is wanted, and it may take long
            code, names = imports, Names.of(imports)
        if hit:
            top = ast.parse(code).body  # bound whatever happens: what was there before is of no account
            surely = {n for s in top if isinstance(s, (ast.Assign, ast.Import, ast.ImportFrom, ast.FunctionDef,
                                                       ast.ClassDef)) for n in Names.of(ast.unparse(s)).binds}
            needed = needed - (surely - names.needs) | names.needs
            chosen.append(code)
    return chosen[::-1]


def run_cells(cells: Iterable[str], values: Mapping[str, object], namespace: dict | None = None) -> dict:
    """Execute cells with form `values` in one namespace, which is returned; figures are closed."""
    namespace = {"__name__": "notebook"} if namespace is None else namespace
    path = sys.path[:]
    try:
        for code in cells:
            exec(compile(filled_in(code, values), "<cell>", "exec"), namespace)
    finally:
        sys.path[:] = path
        plt.close("all")
    return namespace


def write_pictures(folder: Path, size: int, train: int, test: int) -> Path:
    """A folder train/<class>/, test/<class>/ of small PNG pictures, made of `shapes`."""
    from vixlib import load

    data = load("shapes", train=train, test=test, size=max(size, 24))
    for part, images, labels in (("train", data.train_images, data.train_labels),
                                 ("test", data.test_images, data.test_labels)):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / part / f"class {label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, :size, :size].permute(1, 2, 0).numpy()).save(place / f"{i}.png")
    return folder
