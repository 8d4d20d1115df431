"""Controls for a figure: `interact` redraws it while one drags."""
from __future__ import annotations

import inspect
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def interact(function: Callable[..., Figure], **choices: Sequence) -> None:
    """Show the figure `function(**values)` with a control for each of `choices`, argument -> the values it may take.

    A control starts at the function's own default for its argument, else at the first value. Numbers get a slider,
    other values a list. Without ipywidgets or outside a notebook the figure of the starting values is drawn, once.

    Raises TypeError for an argument that `function` does not have, ValueError for a default that is not offered.
    """
    values = starting_values(function, choices)
    widgets = _widgets()
    if widgets is None:
        function(**values)
        print(f"With ipywidgets, in a running notebook, this figure has controls: {', '.join(choices)}.")
        return
    from IPython.display import display

    panel, picture = build_panel(widgets, function, choices, values)
    # Where nothing can draw widgets, as on GitHub or in a page made of the notebook, the picture stands in.
    display({**panel._repr_mimebundle_(), "image/png": b64encode(picture.value).decode()}, raw=True)


def starting_values(function: Callable[..., Figure], choices: Mapping[str, Sequence]) -> dict:
    """What `function` is first called with: its default for each argument of `choices`, else the first choice."""
    parameters = inspect.signature(function).parameters
    values = {}
    for name, offered in choices.items():
        if name not in parameters:
            raise TypeError(f"{name} is no argument of {getattr(function, '__name__', function)!s}; it takes "
                            f"{', '.join(parameters) or 'none'}")
        if not len(offered):
            raise ValueError(f"{name}={offered!r} offers nothing to choose from; give at least one value")
        default = parameters[name].default
        values[name] = offered[0] if default is inspect.Parameter.empty else default
        if values[name] not in offered:
            raise ValueError(f"{name}={default!r}, where its control would start, is not among the choices "
                             f"{offered!r}; add it, or change the default")
    return values


def _widgets():
    """The module ipywidgets if it is installed and a notebook's kernel runs this, else None."""
    try:
        import ipywidgets
        from IPython import get_ipython
    except ImportError:
        return None
    return ipywidgets if hasattr(get_ipython(), "kernel") else None


def build_panel(widgets: ModuleType, function: Callable[..., Figure], choices: Mapping[str, Sequence],
                values: Mapping) -> tuple[object, object]:
    """The controls above the picture of `function(**values)`, redrawn with every change: (panel, picture)."""
    style, layout = {"description_width": "7em"}, {"width": "24em"}
    controls = {}
    for name, offered in choices.items():
        numbers = all(isinstance(value, (int, float)) for value in offered)
        kind = widgets.SelectionSlider if numbers and len(offered) > 1 else widgets.Dropdown
        controls[name] = kind(options=[(str(value), value) for value in offered], value=values[name],
                              description=name.replace("_", " "), style=style, layout=layout)
    picture = widgets.Image(value=as_png(function(**values)), format="png", layout={"max_width": "100%"})

    def redraw(_change) -> None:
        picture.value = as_png(function(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, names="value")
    box = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return widgets.VBox([box, picture]), picture


def as_png(figure: Figure) -> bytes:
    import matplotlib.pyplot as plt

    file = BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)  # an open one would be shown a second time below the cell
    return file.getvalue()
