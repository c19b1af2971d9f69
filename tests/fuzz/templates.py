"""Chat templates that want out, or want everything; and templates made at random from the same pieces."""

from __future__ import annotations

from random import Random

DOUBLING = (
    "[n.x, n.x]",
    "(n.x, n.x)",
    "{'a': n.x, 'b': n.x}",
    "[n.x] * 2",
    "dict(a=n.x, b=n.x)",
    "namespace(a=n.x, b=n.x)",
    "n.x ~ n.x",
    "n.x + n.x",
    "n.x * n.x",
    "n.x * 2",
    "n.x|string * 2",
    "(n.x|string)|replace('', n.x|string)",
    "[n.x.items(), n.x.items()]",
    "(n.x, n.x)|list",
    "[n.x]|batch(2, n.x)|list",
    "n.x|join(n.x|string)",
    "'%s%s' % (n.x, n.x)",
    "'{0}{0}'.format(n.x)",
    "(n.x|string).join('aaa')",
)

HOSTILE = (
    # without end
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "".join(
        "{% block B %}{% if go %}{{ self.C() * 2 }}{{ self.C() }}{% endif %}{% endblock %}".replace(
            "B", f"b{i}"
        ).replace("C", f"b{i + 1}")
        for i in range(30)
    )
    + "{% block b30 %}{% endblock %}",
    "{% for x in [[[]]] recursive %}{{ loop([x, x]) }}{{ loop([x]) }}{% endfor %}",
    "{{ range(100000)|select('in', range(100000)|list)|list|length }}",
    "{{ range(0, 230584300921369395100000, 2305843009213693951)|unique|list|length }}",
    "{% set b = 'a' * 8000000 %}{{ (b ~ b).rfind('b' ~ b) }}",
    "{% set b = 'a' * 8000000 %}{{ (b ~ b).strip('b' ~ b) }}",
    "{% set b = 'a' * 8000000 %}{{ (b ~ b)|trim('b' ~ b) }}",
    "{{ 9|round(1000000000, 'ceil') }}",
    "{{ ([[1]] * 100000)|sum(start=[])|length }}",
    "{{ ('{}' * 1000000).format(*range(100000)) }}",
    "{{ ('%(' * 500000)|format(1) }}",
    "{{ strftime_now('%Y' * 1000000) }}{{ strftime_now('%999999999Y') }}",
    # too large
    *(
        f"{{% set n = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set n.x = {step} %}}{{% endfor %}}"
        "{{ n.x }}"
        for step in DOUBLING
        for start in (("{'a': 1}",) if "items" in step else ("7",) if step == "n.x * n.x" else ("'aa'",))
    ),
    "{% set n = namespace(x={'a': 1}) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}"
    "{{ n.x|tojson }}",
    "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x == n.x }}{{ n.x|length }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ 'a'.zfill(1000000000) }}",
    "{{ ('a\t' * 100000).expandtabs(100000) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=999999999) }}",
    "{{ '%99999999d'|format(1) }}",
    "{{ '%*d' % (99999999, 1) }}",
    "{{ ('a\n' * 9999)|indent(99999) }}",
    "{{ messages|tojson(indent=999999999) }}",
    "{{ messages|tojson(separators=('a' * 1000000, ':')) }}",
    "{{ range(100000)|batch(1000000000, 'a')|list }}",
    "{{ [1]|slice(1000000000)|list|length }}",
    "{{ lipsum(n=1000000) }}",
    "{% set b = 'a' * 8000000 %}{{ b.replace('a', b) }}",
    "{% set b = 'a' * 8000000 %}{{ b|replace('', b) }}",
    "{{ range(100000)|join('a' * 100000) }}",
    "{{ ('a' * 100000).join(range(100000)|map('string')) }}",
    "{{ (1).to_bytes(1000000000, 'big') }}",
    "{% set b = 'ab ' * 5000000 %}{{ b.split()|length }}",
    "{% set b = 'ab' * 5000000 %}{{ b|list|length }}",
    "{{ 'a' * 999999999 }}",
    "{{ 9 ** 999999999 }}",
    "{{ dict.fromkeys(range(100000), 'a' * 100000) }}",
    "{{ ('<'|e).center(1000000000) }}",
    "{{ ('<{:>999999}>'|safe).format(1) }}",
    "{{ 'a'|center(15000000) }}" * 40,
    "{% for i in range(100000) %}{% set x = 'a' * 1000000 %}{{ x }}{% endfor %}",
    "{% set a = 'a' * 16000000 %}" + "{{ a[1:]|length }}" * 3000,
    "{% set a = 'a' * 15000000 %}{% set b = a ~ 'b' %}" + "{{ a == b }}" * 3000,
    "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = n.x + ['a' * 99999] %}{% endfor %}",
    "{% set x %}" * 18 + "{% for i in range(99999) %}aaaaaaaaaaaaaaaaaaaaaaa{% endfor %}" + "{% endset %}" * 18,
    # out
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''|attr('__class__') }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ '{0.__class__.__mro__}'.format(1) }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ ('{0.__class__}'|safe).format(1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ loop.__class__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__closure__ }}",
    "{{ range.__globals__ }}",
    "{{ environment }}{{ context }}{{ __builtins__ }}{{ __name__ }}",
    "{{ (messages|map('upper')).gi_frame }}",
    "{{ f.__code__ }}{% macro f() %}{% endmacro %}{{ f.__init__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('true') }}",
    "{% extends '../x' %}",
    "{% from 'os' import system %}",
    "{{ messages.append(1) }}",
    "{{ messages.__setitem__(0, 1) }}",
    "{{ messages.clear() }}",
    "{{ messages[0].update(role='x') }}",
    "{{ messages[0].pop('role') }}",
    "{% set messages[0] = 1 %}",
    "{% set messages[0].role = 'x' %}",
    "{% do messages.append(1) %}",
    "{{ ''['__class__'] }}",
    "{{ ''['\\x5f_class__'] }}",
    "{{ dict.mro() }}",
    "{{ messages|sort(attribute='__class__.x') }}",
    "{{ messages|groupby('__class__')|list }}",
    "{{ messages|tojson(default=raise_exception) }}",
    # that cannot be compiled
    "{% for a in '' %}" * 30 + "{% endfor %}" * 30,
    "{{ " + "9" * 5000 + " }}",
    "{{ " + "(" * 30000 + "1" + ")" * 30000 + " }}",
    "{{ " + "not " * 20000 + "1 }}",
    "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "{{ " + "a." * 20000 + "a }}",
    "{{ " + "-" * 30000 + "1 }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{{ x if " * 3000 + "1" + " }}",
    "{{ a" + "|upper" * 9000 + " }}",
    "{{ " + "1 + " * 9000 + "1 }}",
    "{{",
    "{%",
    "{#",
    "}}",
    "{% raw %}",
    "{% endfor %}",
    "{{ 'a }}",
    "{% break %}",
    "{% macro %}",
    "{{ 1e9999 }}",
    "{{ 1_0 }}",
    "{{ \0 }}",
    "\ud800",
    "x" * 100_001,
    "{{ x }}" * 14_000,
    "{% set x = 1 %}" * 7_000,
    "{{ a|upper|lower }}" * 5_000,
    "{% macro f(" + ",".join(f"a{i}" for i in range(3000)) + ") %}{% endmacro %}",
    "{{ f(" + "*" * 3 + "x) }}",
    "{% call f() %}{% endcall %}",
    "{% generation %}",
)

_ATOMS = (
    "1",
    "0",
    "-1",
    "99999",
    "10**3",
    "2.5",
    "'a'",
    "''",
    "'aa<b>'",
    "none",
    "true",
    "[]",
    "[1, 2]",
    "{}",
    "{'a': 1}",
    "messages",
    "messages[0]",
    "messages[0].content",
    "messages[-1].role",
    "tools",
    "eos_token",
    "n.x",
    "x",
    "loop.index",
    "range(9)",
    "range(99999)",
    "namespace(x=1)",
    "dict(a=1)",
    "cycler('a', 'b')",
    "joiner()",
    "self",
    "caller",
    "varargs",
    "strftime_now('%Y')",
    "'%s'",
    "'{0}'",
    "1e308",
    "'a' * 9999",
    "missing",
    "missing.y",
    "nothing",
)
_FILTERS = """
    abs attr('x') batch(2) batch(2,'z') capitalize center(9) count default('d') dictsort e escape filesizeformat
    first float forceescape format(1) groupby('role') indent(4) int items join join(', ') join('-','role') last
    length list lower map('upper') map(attribute='role') max min pprint reject rejectattr('role')
    replace('a','bb') replace('','z') reverse round round(2) round(5,'ceil') safe select select('string')
    selectattr('role','equalto','user') slice(3) sort sort(attribute='role') string striptags sum sum(start=1)
    title tojson tojson(indent=2) trim trim('a') truncate(3) unique upper urlencode urlize wordcount wordwrap
    xmlattr int(0,16) random
""".split()
_METHODS = """
    upper() lower() strip() strip('a') split() split('a') rsplit('a',1) splitlines() replace('a','b')
    join(['a','b']) format(1,2) items() keys() values() get('a') startswith('a') endswith('a') find('a')
    count('a') center(9) ljust(9) zfill(9) title() copy() index('a') encode() isdigit() __class__ bit_length()
    as_integer_ratio() format_map({'a':1}) expandtabs() translate({97:'b'}) partition('a') removeprefix('a')
""".split()
_BINARY = (
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "~",
    "==",
    "!=",
    "<",
    ">=",
    "in",
    "not in",
    "and",
    "or",
    "is sameas",
    "is in",
    "is divisibleby",
)

_KINDS = ("defined", "none", "string", "mapping", "iterable", "number", "sequence", "callable", "odd")


def expression(rng: Random, depth: int = 3) -> str:
    """An expression."""
    kind = rng.randrange(11) if depth else 0
    inner = lambda: expression(rng, depth - 1)  # noqa: E731
    if kind <= 1:
        return rng.choice(_ATOMS)
    if kind == 2:
        return f"({inner()} {rng.choice(_BINARY)} {inner()})"
    if kind in (3, 4):
        return f"({inner()})|{rng.choice(_FILTERS)}"
    if kind == 5:
        return f"({inner()}).{rng.choice(_METHODS)}"
    if kind == 6:
        return rng.choice(
            (
                f"[{inner()}, {inner()}]",
                f"({inner()}, {inner()})",
                f"{{'a': {inner()}, 'b': {inner()}}}",
                f"{{{inner()}: {inner()}}}",
            )
        )
    if kind == 7:
        return f"({inner()})[{rng.choice(('0', '-1', ':2', '1:', '::-1', inner()))}]"
    if kind == 8:
        return f"({inner()} if {inner()} else {inner()})"
    if kind == 9:
        return f"({inner()}) is {rng.choice(_KINDS)}"
    return f"f({inner()}, {inner()})"


def made(rng: Random, depth: int = 3) -> str:
    """A template of some statements."""
    return "".join(_statement(rng, depth) for _ in range(rng.choice((1, 1, 2, 3, 5))))


def _statement(rng: Random, depth: int) -> str:
    kind = rng.randrange(12) if depth else rng.randrange(4)
    body = made(rng, depth - 1) if kind > 3 else ""
    value = expression(rng)
    if kind <= 2:
        return f"{{{{ {value} }}}}"
    if kind == 3:
        return rng.choice(
            (
                f"{{% set x = {value} %}}",
                "{% set n = namespace(x=1) %}",
                f"{{% set n.x = {value} %}}",
                f"{{% set n.x = {rng.choice(DOUBLING)} %}}",
            )
        )
    if kind in (4, 5):
        return f"{{% for m in {rng.choice((value, 'messages', 'range(50)', 'range(99999)'))} %}}{body}{{% endfor %}}"
    if kind == 6:
        return f"{{% if {value} %}}{body}{{% else %}}-{{% endif %}}"
    if kind == 7:
        return f"{{% macro f(a, b=1) %}}{body}{{% endmacro %}}{{{{ f({value}) }}}}"
    if kind == 8:
        return f"{{% set x %}}{body}{{% endset %}}"
    if kind == 9:
        return f"{{% filter {rng.choice(_FILTERS)} %}}{body}{{% endfilter %}}"
    if kind == 10:
        name = f"b{rng.randrange(10**6)}"
        return f"{{% block {name} %}}{body}{{% endblock %}}{{{{ self.{name}() }}}}"
    return (
        rng.choice(("{% generation %}", "{% autoescape true %}")) + body + "{% endgeneration %}"
        if rng.random() < 0.5
        else f"{{% autoescape true %}}{body}{{% endautoescape %}}"
    )
