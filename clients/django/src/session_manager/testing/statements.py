"""As much SQL as this package sends to the extension's functions, for the stand-in to answer.

A statement is read once, into a function of its parameters and of the source of rows:

    SELECT expression [AS name], ... [FROM call [AS alias] [LEFT JOIN call AS alias ON true]]

with expressions of parameters, columns, constants and calls.  What it does not know is an error:
the package's own tests run the statements on the stand-in and on PostgreSQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

Row = dict[str, Any]
#: Calls a function by its name.
Caller = Callable[[str, Sequence[Any], Mapping[str, Any]], Any]


class Scope:
    """What an expression sees: parameters, functions, and a row of each call in FROM by alias."""

    def __init__(self, params: Sequence[Any], call: Caller) -> None:
        self.params = params
        self.call = call
        self.rows: dict[str, Row] = {}

    def column(self, path: Sequence[str]) -> Any:
        *alias, name = path
        if alias:
            return self.rows[alias[0]].get(name)
        (value,) = (row[name] for row in self.rows.values() if name in row)
        return value


Expression = Callable[[Scope], Any]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"]|"")*")
      | (?P<name>[A-Za-z_]\w*)
      | (?P<text>'[^']*')
      | (?P<number>\d+)
      | (?P<sign>%s|::|=>|\|\||[(),.])
    )""",
    re.VERBOSE,
)
_CONSTANTS = {"true": True, "false": False, "null": None}


class UnknownStatement(Exception):
    """SQL that the stand-in does not know."""


def _tokens(sql: str) -> Iterator[str]:
    position = 0
    while sql[position:].strip():
        match = _TOKEN.match(sql, position)
        if match is None:
            raise UnknownStatement(sql)
        yield match[0].strip()
        position = match.end()


class _Parser:
    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = list(_tokens(sql))
        self.placeholders = 0

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, *expected: str) -> bool:
        """Take these tokens, words in any case, if they are the next ones."""
        upcoming = [token.lower() for token in self.tokens[: len(expected)]]
        if upcoming != [word.lower() for word in expected]:
            return False
        del self.tokens[: len(expected)]
        return True

    def need(self, *expected: str) -> None:
        if not self.take(*expected):
            raise UnknownStatement(self.sql)

    def next(self) -> str:
        if not self.tokens:
            raise UnknownStatement(self.sql)
        return self.tokens.pop(0)

    def name(self) -> str:
        token = self.next()
        if not re.match(r'[A-Za-z_"]', token):
            raise UnknownStatement(self.sql)
        return token

    def statement(self) -> Statement:
        self.need("SELECT")
        items = [self.item()]
        while self.take(","):
            items.append(self.item())
        sources = []
        if self.take("FROM"):
            sources.append(self.source())
            while self.take("LEFT", "JOIN"):
                sources.append(self.source())
                self.need("ON", "true")
        if self.tokens:
            raise UnknownStatement(self.sql)
        return Statement(items, sources)

    def source(self) -> tuple[str, Expression]:
        expression = self.expression()
        return (self.name() if self.take("AS") else "", expression)

    def item(self) -> tuple[str, Expression]:
        given = self.peek()
        position = 0
        # The last name of a path is the column's.
        while self.tokens[position + 1 : position + 2] == ["."]:
            position += 2
            given = self.tokens[position]
        expression = self.expression()
        return (self.name() if self.take("AS") else given, expression)

    def expression(self) -> Expression:
        value = self.primary()
        while True:
            if self.take("::"):
                self.name()
            elif self.take("AT", "TIME", "ZONE", "'UTC'"):
                pass  # Times are in UTC.
            elif self.take("||"):
                value = _joined(value, self.primary())
            elif self.take("IS", "NOT", "NULL"):
                value = _is_not_null(value)
            else:
                return value

    def primary(self) -> Expression:
        if self.take("%s"):
            index = self.placeholders
            self.placeholders += 1
            return lambda scope: scope.params[index]
        if self.take("CASE", "WHEN"):
            condition = self.expression()
            self.need("THEN")
            value = self.expression()
            self.need("END")
            return lambda scope: value(scope) if condition(scope) else None
        if self.peek().startswith("'"):
            text = self.next().strip("'")
            return lambda scope: text
        if self.peek().lower() in _CONSTANTS:
            constant = _CONSTANTS[self.next().lower()]
            return lambda scope: constant
        path = [self.name()]
        while self.take("."):
            path.append(self.name())
        if self.take("("):
            return self.call(path[-1])
        return lambda scope: scope.column(path)

    def call(self, name: str) -> Expression:
        positional: list[Expression] = []
        named: dict[str, Expression] = {}
        while not self.take(")"):
            if self.tokens[1:2] == ["=>"]:
                argument = self.name()
                self.need("=>")
                named[argument] = self.expression()
            else:
                positional.append(self.expression())
            self.take(",")
        return lambda scope: scope.call(
            name,
            [argument(scope) for argument in positional],
            {key: argument(scope) for key, argument in named.items()},
        )


def _joined(first: Expression, second: Expression) -> Expression:
    def join(scope: Scope) -> Any:
        texts = [first(scope), second(scope)]
        return None if None in texts else "".join(texts)

    return join


def _is_not_null(value: Expression) -> Expression:
    return lambda scope: value(scope) is not None


class Statement:
    """A statement that has been read."""

    def __init__(
        self, items: Sequence[tuple[str, Expression]], sources: Sequence[tuple[str, Expression]]
    ) -> None:
        self._items = items
        self._sources = sources

    def run(self, params: Sequence[Any], call: Caller) -> list[Row]:
        scope = Scope(params, call)
        if not self._sources:
            return [self._project(scope)]
        (alias, first), *joined = self._sources
        result = []
        for row in first(scope):
            scope.rows = {alias: row}
            for other, source in joined:
                # At most one row, as the functions that are joined return.
                scope.rows[other] = next(iter(source(scope)), {})
            result.append(self._project(scope))
        return result

    def _project(self, scope: Scope) -> Row:
        return {name: expression(scope) for name, expression in self._items}


@cache
def read(sql: str) -> Statement:
    """What a statement says; UnknownStatement if it is none of this package's."""
    return _Parser(sql).statement()
