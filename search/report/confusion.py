"""The chart of confusions, as a plain Plotly figure. See `search.report.charts`."""

from __future__ import annotations

from typing import Any

from search.report.charts import Figure, as_text, shortened

MOST_CLASSES = 60
"""With more the squares are too small to tell apart; the commonest confusions are listed instead."""

_CELL_TEXT_LIMIT = 20
_TICK_LIMIT = 20


def confusion_chart(labels: list[str], matrix: list[list[float]]) -> Figure:
    """Counts of true (rows) against predicted (columns) labels, shaded by the share of the true label."""
    totals = [sum(row) or 1 for row in matrix]
    shares = [[cell / total for cell in row] for row, total in zip(matrix, totals, strict=True)]
    names = [as_text(label) for label in labels]
    places = list(range(len(labels)))
    heat: dict[str, Any] = {
        "type": "heatmap",
        "z": shares,
        "x": places,
        "y": places,
        "customdata": [
            [[names[t], names[p], matrix[t][p], f"{100 * shares[t][p]:.0f} %"] for p in places] for t in places
        ],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "@heat0"], [0.5, "@heat1"], [1, "@heat2"]],
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
        "hovertemplate": "true %{customdata[0]}<br>predicted %{customdata[1]}<br>"
        "%{customdata[2]} clips, %{customdata[3]}<extra></extra>",
    }
    annotations = []
    if len(labels) <= _CELL_TEXT_LIMIT:
        annotations = [
            {
                **{"x": p, "y": t, "text": f"{matrix[t][p]:g}", "showarrow": False},
                "font": {"color": "@heat-ink-strong" if shares[t][p] > 0.5 else "@heat-ink", "size": 12},
            }
            for t in places
            for p in places
            if matrix[t][p]
        ]
    short = [as_text(shortened(label, _TICK_LIMIT)) for label in labels]
    ticks = {"tickvals": places, "ticktext": short, "showgrid": False, "ticks": ""}
    layout = {
        "xaxis": {**ticks, "title": {"text": "predicted"}, "tickangle": -45},
        "yaxis": {**ticks, "title": {"text": "true"}, "autorange": "reversed"},
        "annotations": annotations,
        "height": max(380, min(1100, 190 + 30 * len(labels))),
    }
    return {"data": [heat], "layout": layout}
