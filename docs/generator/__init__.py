"""Makes the documentation site from what the repository has: pages, notebooks, docstrings, the README's tables.

| file | what |
|---|---|
| hooks.py | what mkdocs calls, in its order |
| sources.py | which files outside of docs/pages become pages, and how their links change |
| examples.py | the code of a page is run, and what comes out stands below it |
| notebooks.py | an executed notebook as a page, with its stored outputs |
| reference.py, docstrings.py | sites, interventions and public names as pages |
| formulas.py | LaTeX as MathML, made when the site is built |
| check.py | every link and every resource of the built site leads somewhere inside it |

Nothing is fetched when the site is built, nor when it is read.
"""
