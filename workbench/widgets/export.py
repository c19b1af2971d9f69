"""What is on screen as a file: HTML without scripts, CSV, PNG."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from workbench.widgets import static
from workbench.widgets.session import Session

Format = Literal["html", "csv", "png"]
FORMATS = ("html", "csv", "png")


@dataclass(frozen=True)
class Exported:
    """A file: its name, its kind, what is in it."""

    name: str
    mime: str
    content: bytes


def export(session: Session, format: str, view: str | None = None) -> Exported:
    """A file of one view, or of all that are open.

    Raises:
        ValueError: for a format or a view that is not there, or a picture without what makes one.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: expected one of {FORMATS}")
    if view is not None and view not in session.views:
        raise ValueError(f"there is no view {view!r}; there are {', '.join(session.views)}")
    names = [view] if view is not None else list(session.state.open)
    stem = f"workbench-{view or 'bench'}"
    if format == "html":
        page = static.document(f"workbench: {session.config.name}", body(session, names))
        return Exported(f"{stem}.html", "text/html", page.encode())
    if format == "csv":
        return _tables(session, names, stem)
    return _picture(session, names, stem)


def body(session: Session, names: list[str]) -> str:
    """The static form of views, after the tokens and what was done to the run."""
    views = [session.views[name] for name in dict.fromkeys(["tokens", *names]) if name in session.views]
    return _head(session) + "".join(static.section(view.title, view.static()) for view in views)


def _head(session: Session) -> str:
    state = session.state
    edits = "; ".join(map(repr, state.specs)) or "none"
    return static.section(
        "Workbench",
        static.note(f"model {session.config.name} · shown: {state.shown} · interventions: {edits}"),
    )


def _tables(session: Session, names: list[str], stem: str) -> Exported:
    files: dict[str, bytes] = {}
    for name in names:
        for part, content in csv_files(session.views[name].table()).items():
            files[f"{name}{part}.csv"] = content
    if len(files) == 1:
        return Exported(f"{stem}.csv", "text/csv", next(iter(files.values())))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Exported(f"{stem}.zip", "application/zip", packed.getvalue())


def csv_files(data: xr.Dataset) -> dict[str, bytes]:
    """A dataset as CSV: variables of the same dims together in one file, by the dims' names ("" where all are)."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for name, values in data.data_vars.items():
        groups.setdefault(values.dims, []).append(name)
    made = {}
    for dims, variables in groups.items():
        part = "" if len(groups) == 1 else "-" + ("-".join(map(str, dims)) or "values")
        if dims:
            frame = data[variables].to_dataframe().reset_index()
            made[part] = frame.to_csv(index=False).encode()
        else:
            made[part] = "\n".join(["name,value", *(f"{name},{data[name].item()}" for name in variables)]).encode()
    return made


def _picture(session: Session, names: list[str], stem: str) -> Exported:
    if len(names) != 1:
        raise ValueError(f"a PNG is of one view: say which of {', '.join(names) or 'them'} (view=…)")
    try:
        from workbench.figures.static import png
    except ImportError as error:
        raise ValueError(
            f"a PNG needs the extra 'pictures' (pip install 'gpt-oss-workbench[pictures]'): {error}"
        ) from None
    return Exported(f"{stem}.png", "image/png", png(session.views[names[0]].figure()))
