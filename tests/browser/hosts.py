"""The page around a widget: how JupyterLab, Colab, VS Code and a plain page say what theme they are in."""

from __future__ import annotations

from typing import Any, Literal

Theme = Literal["light", "dark"]
Host = Literal["lab", "colab", "vscode", "plain"]

GROUND = {"light": "#ffffff", "dark": "#111111"}
# JupyterLab 4.6's own values.
LAB_BOTH = {
    "ui-font-family": 'system-ui, -apple-system, blinkmacsystemfont, "Segoe UI", helvetica, arial, sans-serif',
    "code-font-family": 'menlo, consolas, "DejaVu Sans Mono", monospace',
    "content-font-family": 'system-ui, -apple-system, blinkmacsystemfont, "Segoe UI", helvetica, arial, sans-serif',
    "ui-font-size1": "13px",
    "content-font-size1": "14px",
    "code-font-size": "13px",
    "widgets-margin": "2px",
}
LAB = {
    "light": {
        "layout-color0": "white",
        "layout-color1": "white",
        "layout-color2": "#eee",
        "ui-font-color1": "rgba(0,0,0,.87)",
        "border-color1": "#bdbdbd",
        "brand-color1": "#1976d2",
    },
    "dark": {
        "layout-color0": "#111",
        "layout-color1": "#212121",
        "layout-color2": "#424242",
        "ui-font-color1": "rgba(255,255,255,.87)",
        "border-color1": "#616161",
        "brand-color1": "#2196f3",
    },
}


def attributes(host: Host, theme: Theme) -> dict[str, dict[str, str]]:
    """The attributes of <html> and <body> by which a host shows its theme; "" takes an attribute away."""
    body, html = {"style": f"background: {GROUND[theme]}"}, {}
    if host == "lab":
        variables = LAB_BOTH | LAB[theme]
        html["style"] = "; ".join(f"--jp-{name}: {value}" for name, value in variables.items())
        body |= {
            "data-jp-theme-light": str(theme == "light").lower(),
            "data-jp-theme-name": f"JupyterLab {theme.title()}",
        }
        body["style"] = "background: var(--jp-layout-color0); font: 14px var(--jp-content-font-family)"
    elif host == "colab":
        html["theme"] = theme
    elif host == "vscode":
        body |= {"class": f"vscode-{theme}", "data-vscode-theme-kind": f"vscode-{theme}"}
        html["style"] = f"--vscode-editor-background: {GROUND[theme]}"
    return {"html": html, "body": body}


def page(host: Host, theme: Theme) -> str:
    """The page into which the bridge puts the widget's views."""
    given = attributes(host, theme)
    return f"""<!doctype html>
<html lang="en"{_written(given["html"])}>
<head>
<meta charset="utf-8"><title>A notebook's output</title>
<style>
body {{ margin: 0 }}
main {{ padding: 8px }}
.jp-OutputArea-output {{ margin-bottom: 8px }}
.jupyter-widgets {{ box-sizing: border-box }}
</style>
<script src="/probes.js"></script>
</head>
<body{_written(given["body"])}>
<main><h1 style="position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%)">Output</h1></main>
<script src="/bridge.js"></script>
<script src="/anywidget.js"></script>
</body>
</html>
"""


def _written(given: dict[str, Any]) -> str:
    return "".join(f" {name}='{value}'" for name, value in given.items())
