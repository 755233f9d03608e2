"""Widgets of the lessons, one module for each.

Source  ipywidgets documentation ("Widget List", "Widget Events"); WCAG 2.2, 1.4.1 (use of colour) and 2.1.1 (keyboard).
Rules   - everything works by keyboard and says in words what it means; where ipywidgets is absent, plain text is shown.
        - a widget starts no process of its own; one that looks by itself stops when it is closed or its kernel ends.
"""

from minidocker.lab.widgets.prediction import Prediction, predict
from minidocker.lab.widgets.refreshed import Refreshed

__all__ = ["Prediction", "Refreshed", "predict"]
